# The lock; not every router has flock.

# What names a running process and no other: its number and the moment it was started, since this boot.
birth_of() {
	birth=
	read -r line 2>/dev/null <"/proc/$1/stat" || return 1
	set -f
	# The name in parentheses may hold blanks; 20 fields after it stands the start time.
	set -- ${line##*) }
	birth=${20}
	set +f
	[ "$1" != Z ] # it ended, and its parent has not looked yet
}

# The lock is a symbolic link to its owner's name: made in one step, so it never stands there without an owner.
# Our own number is asked for: in a subshell $$ is still its parent's.
lock() {
	read -r me rest </proc/self/stat
	birth_of "$me"
	me="$me $birth $boot"
	tries=0
	trap unlock EXIT
	until ln -s "$me" "$RUN/lock" 2>/dev/null; do
		owner=$(readlink "$RUN/lock") || continue
		if alive "$owner"; then
			tries=$((tries + 1))
			[ $tries -le 50 ] || return 1
			sleep 0.1 2>/dev/null || sleep 1
		else
			take_over "$owner"
		fi
	done
	locked=yes
}

unlock() {
	[ -z "$locked" ] || rm -f "$RUN/lock"
	locked=
}

# settle: wait until nobody changes anything, as far as that ends within the time of a lock.
settle() {
	tries=0
	while [ -L "$RUN/lock" ] && [ $tries -le 50 ] && alive "$(readlink "$RUN/lock")"; do
		tries=$((tries + 1))
		sleep 0.1 2>/dev/null || sleep 1
	done
}

alive() {
	[ "${1##* }" = "$boot" ] || return 1
	birth_of "${1%% *}" || return 1
	case $1 in *" $birth "*) return 0 ;; esac
	return 1
}

# The owner died. Of all who noticed, one clears its lock away; the others then find a new owner there, or none.
take_over() {
	if ! mkdir "$RUN/lock.heir" 2>/dev/null; then
		sleep 1
		rmdir "$RUN/lock.heir" 2>/dev/null # the heir needs no such time: it died too
		return
	fi
	# Whoever has the lock next is to see that its owner died over what it did.
	[ "$(readlink "$RUN/lock")" != "$1" ] || { : >"$RUN/orphaned" && rm -f "$RUN/lock"; }
	rmdir "$RUN/lock.heir"
}
