# An end to what waits: it stands, or is taken back. The lock is ours in all of this.

# recover: what somebody left half done, and what had its time, comes to an end.
recover() {
	for left in "$RUN"/work.*; do
		[ -d "/proc/${left##*.}" ] || rm -rf "$left"
	done
	if ! read_pending; then
		# Killed before the mark was there: nothing was touched yet.
		! left_over || drop_pending
		stop_timer
	elif read_generation && [ "$generation" = "$heir" ]; then
		commit
	elif [ -f "$RUN/orphaned" ] || due; then
		outlive
		take_back
	fi
	[ ! -f "$RUN/standby" ] || nft_dismiss
	[ ! -f "$RUN/orphaned" ] || rm -f "$RUN/orphaned"
}

# What a killed owner had started, as nft on a long list, may still be at it.
outlive() {
	tries=0
	while grep -qs "$RUN/work[.]" /proc/[0-9]*/cmdline && [ $tries -le 50 ]; do
		tries=$((tries + 1))
		sleep 0.1 2>/dev/null || sleep 1
	done
}

# The state document's new name is the moment from which the change stands; all else can be done again.
commit() {
	[ "$generation" = "$heir" ] || mv "$ETC/pending/state" "$STATE" || return 1
	[ ! -f "$ETC/pending/bundle" ] || { keep; echo "$pending" >"$ETC/current.id"; mv "$ETC/pending/bundle" "$ETC/current"; }
	rm -f "$ETC/pending/mark" "$ETC/reverted" "$RUN/unsound"
	to_flash "$ETC" "$ETC/pending"
	stop_timer
}

drop_pending() {
	rm -rf "$ETC/pending"
	: >"$RUN/print"
	stop_timer
}

# Whether anything lies where a change that waits has its place, or a killed one its folder.
left_over() {
	for left in "$ETC"/pending/* "$RUN"/work.*; do
		case $left in
		*/work.*) [ -d "/proc/${left##*.}" ] || [ ! -d "$left" ] || return 0 ;;
		*) [ ! -e "$left" ] || return 0 ;;
		esac
	done
	return 1
}

# Whatever step the change had reached: classes are put back and taken away in any case, and of each transaction of rules
# either all was done or nothing. Where one can't be undone, none of it was done or somebody else was at it too: then all that
# was confirmed last is put in place.
take_back() {
	reverted="$pending $heir" again= back=$RUN/work.back
	rm -rf "$back"
	mkdir "$back" && unpack "$ETC/pending/bundle" "$back"
	[ ! -s "$back/undo-tc-put" ] || "$TC" -force -batch "$back/undo-tc-put"
	rules load "$back" undo- || again=yes
	[ ! -s "$back/undo-tc-remove" ] || "$TC" -force -batch "$back/undo-tc-remove"
	put_back "$again"
	echo "$reverted" >"$ETC/reverted.new" && mv "$ETC/reverted.new" "$ETC/reverted"
	drop_pending
	to_flash "$ETC"
} >/dev/null 2>&1

# confirmed: sets `confirmed` to the bundle to go back to: what was confirmed last or, where that was damaged, the newest one
# before it. False where there is none.
confirmed() {
	confirmed=$ETC/current
	whole && has_rules && return
	for confirmed in "$ETC/earlier.1" "$ETC/earlier.2"; do
		! has_rules || return 0
	done
	return 1
}

has_rules() {
	grep -qs "^--- all-" "$confirmed"
}

# put_back [ANEW]: what was confirmed last and is not there; its rules in any case with ANEW. False where a device is missing.
put_back() {
	whole=0 back=$RUN/work.back
	confirmed || return 0
	rm -rf "$back"
	mkdir "$back" && unpack "$confirmed" "$back" || return 1
	[ -z "$1" ] && rules stand || rules load "$back" all- || whole=1
	for queues in "$back"/all-tc-*; do
		device=${queues##*/all-tc-}
		[ -f "$queues" ] || continue # no classes here
		if [ -f "$RUN/loading" ] || ! has_root "$device"; then
			: >"$RUN/loading"
			# The first line makes the root, which can't be done twice.
			if has_root "$device"; then tail -n +2 "$queues"; else cat "$queues"; fi | "$TC" -batch - || whole=1
		fi
	done
	[ $whole = 1 ] || rm -f "$RUN/loading"
	rm -rf "$back"
	return $whole
}

has_root() {
	case $("$TC" qdisc show dev "$1" root 2>&1) in *"htb 1: "*) return 0 ;; esac
	return 1
}

# Whether everything is there, as far as that can be seen without reading it all.
stands() {
	[ ! -f "$RUN/loading" ] && [ ! -f "$RUN/closed" ] && rules stand || return 1
	read_devices
	for device in $devices; do
		has_root "$device" || ! grep -qx -- "--- all-tc-$device" "$ETC/current" || return 1
	done
}
