# Without a trace.

# Our log-in key's line goes, and its file if nothing else is in it.
forget() {
	[ "$1" != - ] || return 0
	for keys in "${HOME:-/root}/.ssh/authorized_keys" /etc/dropbear/authorized_keys; do
		grep -qF "$1" "$keys" 2>/dev/null || continue
		grep -vF "$1" "$keys" >"$keys.tidegate"
		# Written into the file that is there, so that its owner and mode stay.
		cat "$keys.tidegate" >"$keys"
		rm -f "$keys.tidegate"
		[ -s "$keys" ] || rm -f "$keys"
	done
	rmdir "${HOME:-/root}/.ssh" 2>/dev/null
	return 0
}

teardown() {
	key=$1
	shift
	lock || { say busy "$owner"; return; }
	stop_timer
	rules remove
	for device; do
		"$TC" qdisc del dev "$device" root handle 1:
	done
	say ok
	observe_to "" "$@" 2>&1
	forget "$key"
	unhook
	rm -rf "$ETC" "$RUN" "$LIB"
}
