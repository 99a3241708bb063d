# Without a trace.

LOGINS="${HOME:-/root}/.ssh/authorized_keys /etc/dropbear/authorized_keys"

# without KEY: copies of the files of log-in keys that lack ours stand beside them, whole; false where one can't be written.
# Others' keys are in those files, so they are replaced, never written to, and tools that say nothing of a full flash are
# checked.
without() {
	[ "$1" != - ] || return 0
	for keys in $LOGINS; do
		grep -qF "$1" "$keys" 2>/dev/null || continue
		cp -p "$keys" "$keys.tidegate" && grep -vF "$1" "$keys" >"$keys.tidegate"
		[ "$(grep -vF "$1" "$keys" | sha256sum)" = "$(sha256sum <"$keys.tidegate")" ] && to_flash "$keys.tidegate" || {
			rm -f "$keys.tidegate"
			return 1
		}
	done 2>/dev/null
}

# Our log-in key's line goes, and its file if nothing else is in it.
forget() {
	without "$1" || return 1
	for keys in $LOGINS; do
		[ -f "$keys.tidegate" ] || continue
		if [ -s "$keys.tidegate" ]; then mv "$keys.tidegate" "$keys"; else rm -f "$keys" "$keys.tidegate"; fi
	done
	rmdir "${HOME:-/root}/.ssh" 2>/dev/null
	return 0
}

teardown() {
	key=$1
	shift
	lock || { say busy "$owner"; return; }
	# Before anything is taken away: without room for that our key would stay.
	without "$key" || { say refused "no room on its flash to take our log-in key away"; return; }
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
