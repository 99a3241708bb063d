# Copies of the state document: what a controller goes back to where it is damaged, or was not meant to be as it is.

# keep: `current` becomes the one before. Whoever is cut off in it begins it again, and nothing is lost by that.
keep() {
	[ -f "$ETC/current" ] || return 0
	[ ! -f "$ETC/earlier.1" ] || mv "$ETC/earlier.1" "$ETC/earlier.2"
	mv "$ETC/current" "$ETC/earlier.1"
}

# Every document that is here; of a bundle its part.
copies() {
	for name in state.json current earlier.1 earlier.2; do
		[ -f "$ETC/$name" ] || continue
		echo "--- copy $name"
		case $name in
		state.json) cat "$STATE" ;;
		*) awk '/^--- / { ours = $0 == "--- state"; next } ours' "$ETC/$name" ;;
		esac
		echo "--- = $?"
	done
	sum_of_state
	echo "--- sum"
	echo "$sum"
	echo "--- = 0"
	echo "--- end"
}

sum_of_state() {
	sum=-
	[ ! -f "$STATE" ] || sum=$(sha256sum "$STATE")
	sum=${sum%% *}
}

# mend WAS SUM: the document on stdin, of checksum SUM, takes the place of the damaged one, whose checksum is WAS ("-": none).
mend() {
	new=$RUN/work.$$
	trap 'rm -f "$new"' EXIT
	cat >"$new" && got=$(sha256sum "$new") && [ "${got%% *}" = "$2" ] || { say incomplete; return; }
	lock || { say busy "$owner"; return; }
	trap 'unlock; rm -f "$new"' EXIT
	recover
	sum_of_state
	if read_pending; then
		say pending "$pending"
	elif [ "$sum" != "$1" ]; then
		say stale
	elif : >"$RUN/print" && cat "$new" >"$STATE.new" && to_flash "$STATE.new" && mv "$STATE.new" "$STATE" && to_flash "$ETC"; then
		say ok
	else
		say refused flash
	fi
}
