# What was removed or altered by hand since it was confirmed. At the end of a change sums are taken of the very listing by
# which the controller verifies it, and kept in memory as `print`: of queues, rules, state document and bundle; then the
# devices. What counts by itself is left out. Where nobody noted any (after a start, after something was taken back) what
# stands is taken for it.

# look STATE BUNDLE: sets `sums`, of the listing on stdin and of these two files. A queue below ours has its parent's name.
look() {
	mkdir -p "$RUN/work.$$"
	set -- $(sed -En -e '/^--- tc /,/^--- = /{
		/^qdisc/{
			/^qdisc htb 1: .*root /!{
				/ parent 1:/!d
			}
			s/ refcnt [0-9]+//
			s/ direct_packets_stat [0-9]+//
		}
		p
		d
	}' -e "/^--- (nft|ipset|ip4|ip6)\$/,/^--- = /w $RUN/work.$$/.rules" | sort | sha256sum - "$RUN/work.$$/.rules" "$1" "$2")
	sums="$1 $3 $5 $7"
	[ $# = 8 ]
}

# note_answer ID DEVICE...: what a change came to, by its answer, unless it was taken back before we came to it.
note_answer() {
	read -r name version outcome <"$work/answer"
	[ "$outcome" = ok ] && look "$work/state" "$work/bundle" <"$work/answer" || return 0
	if read_pending && [ "$pending" = "$1" ] || { read_generation && [ "$generation" = $((expected + 1)) ]; }; then
		shift
		echo "$sums $*" >"$RUN/print"
	fi
}

# look_around DEVICE...: the sums of what stands now, in `looked`.
look_around() {
	[ -f "$STATE" ] && document=$STATE || document=/dev/null
	looked=$(kernel_to "" "$@" | { look "$document" "$ETC/current" && echo "$sums"; })
	rm -rf "$RUN/work.$$"
	[ -n "$looked" ]
}

# Whether the bundle is the one whose name was noted when it was confirmed; an older agent noted none.
whole() {
	[ -f "$ETC/current.id" ] && read -r id <"$ETC/current.id" || return 0
	case $(sha256sum "$ETC/current") in "$id"*) ;; *) return 1 ;; esac
}

note() {
	read_devices
	! look_around $devices || echo "$looked $devices" >"$RUN/print"
}

# drifted: sets `drift` to what is not as it was confirmed, to "missing" where nothing is known but that something is.
drifted() {
	drift= queues= devices=
	[ ! -f "$RUN/loading" ] && [ ! -f "$RUN/closed" ] || { drift=missing; return; }
	[ ! -f "$RUN/print" ] || read -r queues rules state bundle devices <"$RUN/print"
	if [ -z "$devices" ]; then
		whole || { drift=bundle; return; }
		stands || { drift=missing; return; }
		note
		return 1
	fi
	look_around $devices && [ "$looked" != "$queues $rules $state $bundle" ] || return 1
	set -- $looked
	[ "$1" = "$queues" ] || drift=queues
	[ "$2" = "$rules" ] || drift="$drift rules"
	[ "$3" = "$state" ] || drift="$drift document"
	[ "$4" = "$bundle" ] || drift="$drift bundle"
}

# put_right: what `drift` names, with the lock in hand; each once. What does not come right by it stays, and is the controller's
# to find. By a bundle that is not as it was confirmed nothing is done: rules that run are better than rules of nobody.
put_right() {
	case $drift in
	missing)
		put_back "" && open_up
		return
		;;
	*bundle*)
		: >"$RUN/unsound"
		return
		;;
	esac
	back=$RUN/work.back
	rm -rf "$back"
	mkdir "$back" && unpack "$ETC/current" "$back" || return
	for kind in $drift; do
		case $kind in
		rules) rules load "$back" all- ;;
		queues) for device in $devices; do queues_again; done ;;
		document) cp "$back/state" "$STATE.new" && to_flash "$STATE.new" && mv "$STATE.new" "$STATE" && to_flash "$ETC" ;;
		esac
	done
	rm -rf "$back"
	look_around $devices || return
	set -- $looked
	mended=
	for kind in $drift; do
		case $kind in
		queues) [ "$1" = "$queues" ] || continue ;;
		rules) rules stand || continue ;;
		document) [ "$3" = "$state" ] || continue ;;
		esac
		mended="$mended $kind"
	done
	# Rules that were made anew have other handles: their sum is another.
	echo "$1 $2 $state $bundle $devices" >"$RUN/print"
	[ -z "$mended" ] || tell_mended $mended
}

# Classes of `device` as they were confirmed, and no others; its root too where that is gone.
queues_again() {
	lines=$back/all-tc-$device
	[ -f "$lines" ] || return 0
	if has_root "$device"; then
		{
			tail -n +2 "$lines"
			"$TC" class show dev "$device" | awk -v device="$device" '
				FILENAME == ARGV[1] { for (word = 1; word < NF; word++) if ($word == "classid") ours[$(word + 1)] = 1; next }
				$2 == "htb" && !($3 in ours) { print "class del dev", device, "classid", $3 }' "$lines" -
		} | "$TC" -force -batch -
	else
		"$TC" -batch "$lines"
	fi
}

# tell_mended WORD...: for whoever asks next. Flash is written once for each kind until somebody heard of it.
tell_mended() {
	when= told=
	[ ! -f "$ETC/mended" ] || read -r when told <"$ETC/mended"
	more=$told
	for kind; do
		case " $more " in *" $kind "*) ;; *) more="${more:+$more }$kind" ;; esac
	done
	[ "$more" != "$told" ] || return 0
	echo "$(date +%s) $more" >"$ETC/mended.new" && to_flash "$ETC/mended.new" && mv "$ETC/mended.new" "$ETC/mended" && to_flash "$ETC"
}
