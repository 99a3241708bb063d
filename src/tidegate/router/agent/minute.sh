# Without a controller: the timer of what waits, cron, the start of the router.

timer() {
	locked= until=$((seconds + window))
	sleep "$window" &
	birth_of $! && echo "$! $birth" >"$RUN/timer"
	wait $!
	# Woken early where the change was confirmed or taken back.
	while read_pending && due; do
		! lock || recover
		unlock
		# Flash that can't be written to, say: no hurry then.
		! read_pending || ! due || sleep 5
	done
	# A caller whose line is dead and does not know it listens for ever. One that is about to answer gets the time to.
	read_seconds
	[ "$seconds" -ge "$until" ] && sleep 10 && birth_of "${asker% *}" && [ "$birth" = "${asker#* }" ] && kill -9 "${asker% *}"
}

stop_timer() {
	[ -f "$RUN/timer" ] && read -r timer since <"$RUN/timer" || return 0
	birth_of "$timer" && [ "$birth" = "$since" ] && kill -9 "$timer"
}

# heal: what is due is brought to its end, and what a dead owner left.
heal() {
	settle
	if [ ! -L "$RUN/lock" ] && [ ! -f "$RUN/closed" ]; then
		if read_pending; then due; else left_over; fi || return 0
	fi
	! lock || { recover; finish_start; }
	unlock
}

# What the start could not do yet, where it did not: nobody is to plan against a router that is on its way up.
finish_start() {
	[ ! -f "$RUN/closed" ] || { put_back "" && open_up; } >/dev/null 2>&1
}

tick() {
	heal
	[ -f "$ETC/current" ] && ! read_pending || return 0
	drifted || { [ ! -f "$RUN/unsound" ] || rm -f "$RUN/unsound"; return; }
	lock || return
	# Somebody may have been at it while we looked.
	! read_pending && drifted && put_right
}

# A class that is not there limits nothing. So at a start the packets of limited groups, which have a class for priority, are
# dropped until the queues are in; the interfaces may come after us.
boot() {
	lock || return
	[ -d "$ETC" ] || return
	confirmed && rules close && : >"$RUN/closed"
	recover
	put_back anew && open_up
	hook
	unlock
	[ ! -f "$RUN/closed" ] || (soon) &
}

open_up() {
	[ ! -f "$RUN/closed" ] || rules open
	rm -f "$RUN/closed"
}

# Until the interfaces are there; cron goes on with it after a minute.
soon() {
	for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40; do
		[ -f "$RUN/closed" ] || return
		case $try in ?) sleep 0.1 2>/dev/null || sleep 1 ;; *) sleep 2 ;; esac
		tick
		unlock
	done
}
