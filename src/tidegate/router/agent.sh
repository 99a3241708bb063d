#!/bin/sh
# Tidegate's agent: what runs on a router. POSIX sh; works in busybox ash and in dash.
#
#   agent VERSION probe                                   what this router can do
#   agent VERSION observe DEVICE...                       state document, what waits or was taken back, our table, the queues
#   agent VERSION status                                  the same without table and queues
#   agent VERSION apply GENERATION SHA256 SECONDS DEVICE...  the bundle on stdin; all of it or nothing; then observe
#   agent VERSION confirm ID                              the change that waits stands from now on
#   agent VERSION revert ID                               it is taken back now
#   agent VERSION heard ID                                that a change was taken back is known, and need not be kept
#   agent VERSION teardown KEY DEVICE...                  every trace gone, this file and our log-in key too
#   agent VERSION forget KEY                              our log-in key, and this file where no state document is
#   agent - tick                                          every minute: finish or take back what is due, put back what is gone
#   agent - boot                                          the same at a start, with limited groups held until their limits are in
#
# Promises. A bundle is here in whole, with its checksum right, before anything runs. Changes stand in line behind one lock,
# and only the one that knows the present generation goes in. A change waits to be confirmed, for SECONDS: its bundle, with
# the part that says how it is undone, is on the flash and a timer runs before anything is touched. It stands once the state
# document bears its name; until then it is taken back by whoever comes first after its time: the timer, cron, a start of the
# router, the next verb. It runs apart from its caller and hears no HUP, PIPE, INT or TERM: a cut line stops nothing.
#
# On flash: state.json is what was confirmed last, `current` the bundle that puts all of it in place, pending/ the bundle and
# mark (id, generation, boot, deadline in seconds of uptime) of what waits, state.json.new its document, `reverted` the id and
# generation of what was taken back and nobody has heard of.
#
# Processes are the price on a small router: files are read by the shell itself where it can, and awk splits a bundle once.
# The first line of an answer is "tidegate-agent VERSION WORD ..."; sections follow, "--- NAME", their text, "--- = STATUS".

VERSION=@VERSION@
ROOT=${TIDEGATE_ROOT:-}
LIB=$ROOT/usr/lib/tidegate
ETC=$ROOT/etc/tidegate
RUN=$ROOT/var/run/tidegate
STATE=$ETC/state.json
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077
trap '' HUP PIPE INT TERM

say() {
	echo "tidegate-agent $VERSION $*"
}

# find_tool NAME FLAG WORD: the path of the real NAME, whose FLAG prints WORD. Busybox has applets of the same names, and its
# shell runs those before looking at PATH.
find_tool() {
	for found in /usr/sbin/"$1" /sbin/"$1" /usr/bin/"$1" /bin/"$1" /usr/libexec/"$1"; do
		[ -x "$found" ] || continue
		case $("$found" "$2" 2>&1) in *"$3"*) return 0 ;; esac
	done
	found=
	return 1
}

# Where the tools are, looked for once after each boot: RUN is in memory.
tools() {
	[ -d "$RUN" ] || mkdir -p "$RUN"
	if [ -f "$RUN/tools" ]; then
		. "$RUN/tools"
		return
	fi
	find_tool nft --version nftables; NFT=$found
	find_tool tc -V iproute2; TC=$found
	printf 'NFT=%s\nTC=%s\n' "$NFT" "$TC" >"$RUN/tools.$$" && mv "$RUN/tools.$$" "$RUN/tools"
}

# ── the lock; not every router has flock

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

# ── the verbs

probe() {
	say ok
	echo "--- probe"
	echo "kernel=$(uname -r)"
	echo "shell=$(readlink /proc/$$/exe)"
	echo "nft=$([ -z "$NFT" ] || "$NFT" --version)"
	echo "tc=$([ -z "$TC" ] || "$TC" -V)"
	find_tool conntrack -V conntrack && echo "conntrack=$found"
	# Queues are tried where nothing else is: on a bridge without ports that lives for the moment.
	trial=tgtrial0
	if [ -n "$TC" ] && ip link add $trial type bridge; then
		if "$TC" qdisc add dev $trial root handle 1: htb default 1; then
			echo "htb=yes"
			"$TC" class add dev $trial parent 1: classid 1:1 htb rate 1mbit
			for leaf in fq_codel bfifo; do
				"$TC" qdisc add dev $trial parent 1:1 handle 2: $leaf || continue
				echo "leaf=$leaf"
				break
			done
		fi
		ip link del $trial
	fi 2>/dev/null
	echo "--- = 0"
	echo "--- end"
}

# observe_to FLAGS DEVICE...: FLAGS are tc's, "-s" for counters or "" without.
observe_to() {
	flags=$1
	shift
	echo "--- state"
	[ ! -f "$STATE" ] || cat "$STATE"
	echo "--- = $?"
	waiting
	echo "--- nft"
	"$NFT" -j list table inet tidegate 2>&1
	echo "--- = $?"
	for device; do
		echo "--- tc $device"
		"$TC" $flags -batch - 2>&1 <<-END
			qdisc show dev $device
			class show dev $device
		END
		echo "--- = $?"
	done
	echo "--- end"
}

# The generation of the state document and whose it is; 0 where there is none.
read_generation() {
	generation=0 controller=
	[ -f "$STATE" ] || return 0
	{
		read -r line
		read -r line
	} <"$STATE"
	generation=${line#*'"generation": '}
	generation=${generation%%,*}
	controller=${line#*'"controller": "'}
	controller=${controller%%'"'*}
}

# What waits to be confirmed: its id, the generation that it makes, and until when; false where nothing does.
read_pending() {
	pending= heir= birthplace= deadline=
	[ -f "$ETC/pending/mark" ] && read -r pending heir birthplace deadline <"$ETC/pending/mark"
}

read_seconds() {
	read -r seconds rest </proc/uptime
	seconds=${seconds%%.*}
}

# Whether what waits has had its time, or is of another life of the router: what was in memory is gone then.
due() {
	read_seconds
	[ "$birthplace" != "$boot" ] || [ ! -f "$RUN/armed" ] || [ "$seconds" -ge "$deadline" ]
}

waiting() {
	echo "--- commit"
	if read_pending; then
		read_seconds
		echo "pending=$pending $heir $((deadline - seconds))"
	fi
	if [ -f "$ETC/reverted" ]; then
		read -r reverted <"$ETC/reverted"
		echo "reverted=$reverted"
	fi
	echo "--- = 0"
}

to_flash() {
	sync "$@" 2>/dev/null || sync
}

# unpack BUNDLE FOLDER: its parts, each a file there.
unpack() {
	awk -v to="$2/" '/^--- / { part = to substr($0, 5); printf "" >part; next } { print >part }' "$1"
}

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
	failed=nft && { [ ! -s "$work/nft" ] || "$NFT" -f "$work/nft"; } || return 1
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

timer() {
	locked=
	sleep "$window" &
	birth_of $! && echo "$! $birth" >"$RUN/timer"
	wait $!
	# Woken early where the change was confirmed or taken back.
	while read_pending && due; do
		! lock || recover
		unlock
	done
}

stop_timer() {
	[ -f "$RUN/timer" ] && read -r timer since <"$RUN/timer" || return 0
	birth_of "$timer" && [ "$birth" = "$since" ] && kill -9 "$timer"
}

undo() {
	[ ! -s "$work/undo-tc-put" ] || "$TC" -force -batch "$work/undo-tc-put"
	case $failed in
	tc-remove) [ ! -s "$work/undo-nft" ] || "$NFT" -f "$work/undo-nft" ;;
	esac
	[ ! -s "$work/undo-tc-remove" ] || "$TC" -force -batch "$work/undo-tc-remove"
}

batch() {
	[ ! -s "$work/$1" ] || "$TC" -batch "$work/$1" >&2
}

# ── an end to what waits; the lock is ours

# recover: what somebody left half done, and what had its time, comes to an end.
recover() {
	for left in "$RUN"/work.*; do
		[ -d "/proc/${left##*.}" ] || rm -rf "$left"
	done
	if ! read_pending; then
		# Killed before the mark was there: nothing was touched yet.
		[ ! -d "$ETC/pending" ] || drop_pending
	elif read_generation && [ "$generation" = "$heir" ]; then
		commit
	elif [ -f "$RUN/orphaned" ] || due; then
		outlive
		take_back
	fi
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
	[ "$generation" = "$heir" ] || mv "$STATE.new" "$STATE" || return 1
	[ ! -f "$ETC/pending/bundle" ] || mv "$ETC/pending/bundle" "$ETC/current"
	rm -rf "$ETC/pending" "$ETC/reverted"
	to_flash "$ETC"
	stop_timer
}

drop_pending() {
	rm -rf "$ETC/pending" "$STATE.new"
	stop_timer
}

# Whatever step the change had reached: classes are put back and taken away in any case, and of the rules' transaction
# either all was done or nothing. Where it can't be undone, none of it was done or somebody else was at it too: then all that
# was confirmed last is put in place.
take_back() {
	reverted="$pending $heir" again= back=$RUN/work.back
	rm -rf "$back"
	mkdir "$back" && unpack "$ETC/pending/bundle" "$back"
	[ ! -s "$back/undo-tc-put" ] || "$TC" -force -batch "$back/undo-tc-put"
	[ ! -s "$back/undo-nft" ] || "$NFT" -f "$back/undo-nft" || again=yes
	[ ! -s "$back/undo-tc-remove" ] || "$TC" -force -batch "$back/undo-tc-remove"
	put_back "$again"
	echo "$reverted" >"$ETC/reverted.new" && mv "$ETC/reverted.new" "$ETC/reverted"
	drop_pending
	to_flash "$ETC"
} >/dev/null 2>&1

# put_back [ANEW]: what was confirmed last and is not there; its rules in any case with ANEW. False where a device is missing.
put_back() {
	whole=0 back=$RUN/work.back
	[ -f "$ETC/current" ] || return 0
	rm -rf "$back"
	mkdir "$back" && unpack "$ETC/current" "$back" || return 1
	[ -z "$1" ] && has_table || "$NFT" -f "$back/all-nft" || whole=1
	for queues in "$back"/all-tc-*; do
		device=${queues##*/all-tc-}
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

has_table() {
	"$NFT" -t list table inet tidegate >/dev/null 2>&1
}

has_root() {
	case $("$TC" qdisc show dev "$1" root 2>&1) in *"htb 1: "*) return 0 ;; esac
	return 1
}

# ── from outside: cron, the start of the router, the controller

# heal: what is due is brought to its end, and what a dead owner left.
heal() {
	settle
	if [ ! -L "$RUN/lock" ] && [ ! -f "$RUN/closed" ]; then
		if read_pending; then due; else [ -d "$ETC/pending" ]; fi || return 0
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
	if [ -f "$ETC/current" ] && ! read_pending && ! stands; then
		lock || return
		read_pending || { put_back "" && open_up; }
	fi
}

# Whether everything is there, as far as that can be seen without reading it all.
stands() {
	[ ! -f "$RUN/loading" ] && [ ! -f "$RUN/closed" ] && has_table || return 1
	read_devices
	for device in $devices; do
		has_root "$device" || return 1
	done
}

# The devices, from the third line of the state document.
read_devices() {
	devices=
	[ -f "$STATE" ] || return 0
	{ read -r line && read -r line && read -r line; } <"$STATE"
	lan=${line#*'"lan": "'} wan=${line#*'"wan": "'}
	devices="${lan%%'"'*} ${wan%%'"'*}"
}

# A class that is not there limits nothing. So at a start the packets of limited groups, which have a class for priority, are
# dropped until the queues are in; the interfaces may come after us.
boot() {
	lock || return
	[ -d "$ETC" ] && [ -n "$NFT" ] || return
	[ -f "$ETC/current" ] && "$NFT" -f - <<-END && : >"$RUN/closed"
		table inet tidegate_boot
		delete table inet tidegate_boot
		table inet tidegate_boot {
		chain forward {
		type filter hook forward priority -4; policy accept;
		meta priority >= 1:0 drop
		}
		}
	END
	recover
	put_back anew && open_up
	hook
	unlock
	[ ! -f "$RUN/closed" ] || (soon) &
}

open_up() {
	[ ! -f "$RUN/closed" ] || "$NFT" delete table inet tidegate_boot
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

confirm() {
	lock || { say busy "$owner"; return; }
	recover
	if ! read_pending; then
		say none
	elif [ "$pending" != "$1" ]; then
		say pending "$pending"
	elif commit; then
		say ok
		[ -f "$RUN/hooked" ] || hook
	else
		take_back
		say none
	fi
	unlock
	status
}

revert() {
	lock || { say busy "$owner"; return; }
	recover
	if read_pending && [ "$pending" != "$1" ]; then
		say pending "$pending"
	else
		[ -z "$pending" ] || take_back
		say ok
	fi
	shift
	observe_to "" "$@"
}

status() {
	echo "--- state"
	[ ! -f "$STATE" ] || cat "$STATE"
	echo "--- = $?"
	waiting
	echo "--- end"
}

# ── what calls us at a start and every minute

INIT=$ROOT/etc/init.d/tidegate
LINK=$ROOT/etc/rc.d/S18tidegate
TAB=$ROOT/etc/crontabs/root
LINE="* * * * * /bin/sh $LIB/agent - tick"

# Before the firewall (S19) and the network (S20) of OpenWrt. Our line is the first of the crontab, so that not a byte of
# others' lines is touched; crond sees a new file, not one that was changed in place.
hook() {
	if [ -d "$ROOT/etc/rc.d" ] && [ ! -L "$LINK" ]; then
		printf '#!/bin/sh\n# Tidegate: what was confirmed is in place before anything is forwarded.\ncase $1 in boot | start) exec /bin/sh %s - boot ;; esac\n' "$LIB/agent" >"$INIT.new" &&
			chmod 755 "$INIT.new" && to_flash "$INIT.new" && mv "$INIT.new" "$INIT" && ln -s ../init.d/tidegate "$LINK"
	fi
	if [ -d "${TAB%/*}" ]; then
		grep -qxF "$LINE" "$TAB" 2>/dev/null || edit_crontab put
	elif [ -d "$ROOT/etc/cron.d" ]; then
		echo "* * * * * root /bin/sh $LIB/agent - tick" >"$ROOT/etc/cron.d/tidegate"
		chmod 644 "$ROOT/etc/cron.d/tidegate"
	fi
	: >"$RUN/hooked"
}

unhook() {
	rm -f "$INIT" "$LINK" "$ROOT/etc/cron.d/tidegate"
	! grep -qxF "$LINE" "$TAB" 2>/dev/null || edit_crontab take
	[ ! -f "$ETC/made-crontab" ] || [ -s "$TAB" ] || rm -f "$TAB"
}

edit_crontab() {
	if [ -f "$TAB" ]; then
		cp -p "$TAB" "$TAB.tidegate"
	else
		: >"$ETC/made-crontab"
		: >"$TAB.tidegate"
	fi
	{
		read -r first <"$TAB"
		if [ "$1" = put ]; then
			echo "$LINE"
			[ ! -f "$TAB" ] || cat "$TAB"
		elif [ "$first" = "$LINE" ]; then
			tail -n +2 "$TAB"
		else
			grep -vxF "$LINE" "$TAB"
		fi
	} >"$TAB.tidegate" 2>/dev/null
	to_flash "$TAB.tidegate"
	mv "$TAB.tidegate" "$TAB"
	# OpenWrt's starts with a crontab only.
	[ ! -x "$ROOT/etc/init.d/cron" ] || "$ROOT/etc/init.d/cron" restart
} </dev/null >/dev/null 2>&1

# Our log-in key's line goes, and its file if nothing else is in it.
forget() {
	case $1 in '' | *[!A-Za-z0-9+/=]*) return 0 ;; esac
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
	for table in tidegate tidegate_boot; do
		[ -z "$NFT" ] || printf 'table inet %s\ndelete table inet %s\n' $table $table | "$NFT" -f -
	done
	for device; do
		"$TC" qdisc del dev "$device" root handle 1:
	done
	say ok
	observe_to "" "$@" 2>&1
	forget "$key"
	unhook
	rm -rf "$ETC" "$RUN" "$LIB"
}

wanted=${1:-} verb=${2:-} locked=
shift 2 2>/dev/null
case $wanted-$verb in
"$VERSION-$verb" | --tick | --boot) ;;
*)
	say version
	exit 0
	;;
esac
read -r boot </proc/sys/kernel/random/boot_id
tools
case $verb in
probe) probe ;;
observe) heal; say ok; observe_to -s "$@" ;;
status) heal; say ok; status ;;
apply) apply "$@" ;;
confirm) confirm "$@" ;;
revert) revert "$@" ;;
heard) rm -f "$ETC/reverted"; say ok ;;
tick | boot)
	exec </dev/null >/dev/null 2>&1 # boot leaves a process behind, for which nobody is to wait
	$verb
	;;
teardown) teardown "$@" ;;
forget)
	forget "${1:-}"
	say ok
	[ -f "$STATE" ] || { unhook; rm -rf "$ETC" "$RUN" "$LIB"; }
	;;
*) say unknown; exit 2 ;;
esac
