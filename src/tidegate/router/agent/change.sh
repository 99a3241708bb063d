# A change: received, put down as what waits, made, read back.

apply() {
	expected=$1 sum=$2 length=$3 window=$4
	shift 4
	birth_of $$
	asker="$$ $birth"
	work=$RUN/work.$$
	trap 'rm -rf "$work"' EXIT # a lock taken later sets its own
	mkdir "$work" && head -c "$length" >"$work/bundle" || { say refused receiving; return; }
	got=$(sha256sum "$work/bundle")
	[ "${got%% *}" = "$sum" ] || { say incomplete; return; }
	unpack "$work/bundle" "$work" || { say refused unpacking; return; }
	# From here on nothing depends on the caller, nor on this process. What goes to it directly is one line, for which there is
	# room in any pipe.
	(make_change "$@") 3>&1 </dev/null >"$work/answer" 2>/dev/null &
	if wait $!; then
		cat "$work/answer"
		note_answer "${sum%"${sum#????????????????}"}" "$@"
		rm -rf "$work"
	else
		(lock && recover)
		say broken
		return
	fi
	# Nothing is held while we listen: others may confirm it, its time may run out.
	! read -r order id || [ "$order" != confirm ] || confirm "$id" line
}

# make_change LAN WAN
make_change() {
	lan=$1
	lock || { say busy "$owner"; return; }
	recover
	[ ! -f "$RUN/closed" ] || ! finish_start || { read_generation; say stale "$generation" "$controller"; return; }
	! read_pending || { read_seconds; say pending "$pending" $((deadline - seconds)); return; }
	read_generation
	[ "$generation" = "$expected" ] || { say stale "$generation" "$controller"; return; }
	# What was meant for another router, whichever way it came here.
	read -r meant <"$work/for" && [ "$generation" = 0 ] || [ "$meant" = "$controller $router" ] || { say elsewhere "$router"; return; }
	# Whoever cleared up after a caller that was killed may have taken this for a remainder.
	[ -s "$work/state" ] || return 1
	if change 2>"$work/error"; then
		say changed >&3
		say ok
		[ ! -f "$work/lan" ] || show_lan
	else
		say refused "$failed"
		{ undo; drop_pending; } >>"$work/error" 2>&1
		echo "--- error"
		cat "$work/error"
		echo "--- = 0"
	fi
	observe_to "" "$@"
}

# Classes before the rules that name them; what nobody names any more after. `failed` says how far it came.
change() {
	[ ! -f "$work/lan" ] || lan_before
	failed=state && await_confirmation || return 1
	failed=tc-put && batch tc-put || return 1
	failed=$DIALECT && rules load "$work" "" || return 1
	failed=tc-remove && batch tc-remove || return 1
	failed=lan && { [ ! -f "$work/lan" ] || lan_after; } || return 1
	failed=
}

# The way back is on the flash, and the timer runs, before anything is touched. The mark comes last, and ends with a word of
# its own: without a whole one nothing waits.
await_confirmation() {
	[ -d "$ETC/pending" ] || { mkdir -p "$ETC/pending" && to_flash "$ETC" "${ETC%/*}"; } || return 1
	cp "$work/bundle" "$work/state" "$ETC/pending" || return 1
	read_seconds
	printf '%.16s %s %s %s waits\n' "$sum" $((expected + 1)) "$boot" $((seconds + window)) >"$ETC/pending/mark" || return 1
	: >"$RUN/armed"
	: >"$RUN/print"
	to_flash "$ETC/pending/bundle" "$ETC/pending/state" "$ETC/pending/mark" "$ETC/pending" || return 1
	(timer) </dev/null >/dev/null 2>&1 3>&- &
}

undo() {
	[ ! -s "$work/undo-tc-put" ] || "$TC" -force -batch "$work/undo-tc-put"
	# Of nft's transaction nothing was done where it failed; with iptables a part may be.
	case $failed in
	tc-remove | iptables | lan) rules load "$work" undo- ;;
	esac
	[ ! -s "$work/undo-tc-remove" ] || "$TC" -force -batch "$work/undo-tc-remove"
}

batch() {
	[ ! -s "$work/$1" ] || "$TC" -batch "$work/$1" >&2
}
