# A change: received, put down as what waits, made, read back.

apply() {
	expected=$1 sum=$2 window=$3
	shift 3
	work=$RUN/work.$$
	trap 'rm -rf "$work"' EXIT
	mkdir "$work" && cat >"$work/bundle" || { say refused receiving; return; }
	got=$(sha256sum "$work/bundle")
	[ "${got%% *}" = "$sum" ] || { say incomplete; return; }
	unpack "$work/bundle" "$work" || { say refused unpacking; return; }
	# From here on nothing depends on the caller, nor on this process.
	(make_change "$@") </dev/null >"$work/answer" 2>/dev/null &
	if wait $!; then
		cat "$work/answer"
	else
		(lock && recover)
		say broken
	fi
}

make_change() {
	lock || { say busy "$owner"; return; }
	recover
	[ ! -f "$RUN/closed" ] || ! finish_start || { read_generation; say stale "$generation" "$controller"; return; }
	! read_pending || { read_seconds; say pending "$pending" $((deadline - seconds)); return; }
	read_generation
	[ "$generation" = "$expected" ] || { say stale "$generation" "$controller"; return; }
	# Whoever cleared up after a caller that was killed may have taken this for a remainder.
	[ -s "$work/state" ] || return 1
	if change 2>"$work/error"; then
		say ok
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
	failed=state && await_confirmation || return 1
	failed=tc-put && batch tc-put || return 1
	failed=$DIALECT && rules load "$work" "" || return 1
	failed=tc-remove && batch tc-remove || return 1
	failed=
}

# The way back is on the flash, and the timer runs, before anything is touched. The mark comes last: without it nothing waits.
await_confirmation() {
	new=$ETC/pending
	mkdir -p "$new" && cat "$work/bundle" >"$new/bundle" && cat "$work/state" >"$STATE.new" || return 1
	read_seconds
	printf '%.16s %s %s %s\n' "$sum" $((expected + 1)) "$boot" $((seconds + window)) >"$new/mark.new" || return 1
	: >"$RUN/armed"
	to_flash "$new/bundle" "$new/mark.new" "$STATE.new" && mv "$new/mark.new" "$new/mark" && to_flash "$new" "$ETC" || return 1
	(timer) </dev/null >/dev/null 2>&1 &
}

undo() {
	[ ! -s "$work/undo-tc-put" ] || "$TC" -force -batch "$work/undo-tc-put"
	# Of nft's transaction nothing was done where it failed; with iptables a part may be.
	case $failed in
	tc-remove | iptables) rules load "$work" undo- ;;
	esac
	[ ! -s "$work/undo-tc-remove" ] || "$TC" -force -batch "$work/undo-tc-remove"
}

batch() {
	[ ! -s "$work/$1" ] || "$TC" -batch "$work/$1" >&2
}
