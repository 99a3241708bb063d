#!/bin/sh
# Tidegate's agent: what runs on a router. POSIX sh; works in busybox ash and in dash.
#
#   agent VERSION probe                                   what this router can do
#   agent VERSION observe DEVICE...                       the state document, our table, the queues on each device
#   agent VERSION apply GENERATION SHA256 DEVICE...       the bundle on stdin; all of it or nothing; then observe
#   agent VERSION teardown KEY DEVICE...                  every trace gone, this file and our log-in key too
#   agent VERSION forget KEY                              our log-in key, and this file where no state document is
#
# Promises. A bundle is here in whole, with its checksum right, before anything runs. Changes stand in line behind one lock,
# and only the one that knows the present generation goes in. A change that fails anywhere is undone by the part of its own
# bundle that says how. Losing the caller stops nothing: HUP and PIPE are ignored, so a cut line never leaves half a change.
#
# Processes are the price on a small router: files are read by the shell itself where it can, and awk splits a bundle once.
# The first line of an answer is "tidegate-agent VERSION WORD ..."; sections follow, "--- NAME", their text, "--- = STATUS".

VERSION=@VERSION@
LIB=${TIDEGATE_ROOT:-}/usr/lib/tidegate
ETC=${TIDEGATE_ROOT:-}/etc/tidegate
RUN=${TIDEGATE_ROOT:-}/var/run/tidegate
STATE=$ETC/state.json
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077
trap '' HUP PIPE

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
}

# The lock is a symbolic link to its owner's name: made in one step, so it never stands there without an owner.
lock() {
	birth_of $$
	me="$$ $birth $boot"
	tries=0
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
	[ "$(readlink "$RUN/lock")" != "$1" ] || rm -f "$RUN/lock"
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

apply() {
	expected=$1 sum=$2
	shift 2
	work=$RUN/work.$$
	locked=
	trap 'rm -rf "$work"; [ -z "$locked" ] || rm -f "$RUN/lock"' EXIT
	mkdir "$work" && cat >"$work/bundle" || { say refused receiving; return; }
	got=$(sha256sum "$work/bundle")
	[ "${got%% *}" = "$sum" ] || { say incomplete; return; }
	awk -v to="$work/" '/^--- / { part = to substr($0, 5); printf "" >part; next } { print >part }' "$work/bundle" ||
		{ say refused unpacking; return; }
	lock || { say busy "$owner"; return; }
	read_generation
	[ "$generation" = "$expected" ] || { say stale "$generation" "$controller"; return; }
	if change 2>"$work/error"; then
		say ok
	else
		say refused "$failed"
		undo >>"$work/error" 2>&1
		echo "--- error"
		cat "$work/error"
		echo "--- = 0"
	fi
	observe_to "" "$@"
}

# Classes before the rules that name them; what nobody names any more after. `failed` says how far it came.
change() {
	failed=tc-put && batch tc-put || return 1
	failed=nft && { [ ! -s "$work/nft" ] || "$NFT" -f "$work/nft"; } || return 1
	failed=tc-remove && batch tc-remove || return 1
	failed=state && write_state || return 1
	failed=
}

undo() {
	[ ! -s "$work/undo-tc-put" ] || "$TC" -force -batch "$work/undo-tc-put"
	case $failed in
	tc-remove | state) [ ! -s "$work/undo-nft" ] || "$NFT" -f "$work/undo-nft" ;;
	esac
	[ ! -s "$work/undo-tc-remove" ] || "$TC" -force -batch "$work/undo-tc-remove"
}

batch() {
	[ ! -s "$work/$1" ] || "$TC" -batch "$work/$1" >&2
}

# On flash before it bears its name: a power cut leaves the old document or the new one.
write_state() {
	[ -d "$ETC" ] || mkdir -p "$ETC" || return 1
	cat "$work/state" >"$STATE.new" && sync "$STATE.new" && mv "$STATE.new" "$STATE" || { rm -f "$STATE.new"; return 1; }
	sync "$ETC"
}

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
	locked=
	lock || { say busy "$owner"; return; }
	[ -z "$NFT" ] || printf 'table inet tidegate\ndelete table inet tidegate\n' | "$NFT" -f -
	for device; do
		"$TC" qdisc del dev "$device" root handle 1:
	done
	say ok
	observe_to "" "$@" 2>&1
	forget "$key"
	rm -rf "$ETC" "$RUN" "$LIB"
}

wanted=${1:-} verb=${2:-}
shift 2 2>/dev/null
if [ "$wanted" != "$VERSION" ]; then
	say version
	exit 0
fi
read -r boot </proc/sys/kernel/random/boot_id
tools
case $verb in
probe) probe ;;
observe) settle; say ok; observe_to -s "$@" ;;
apply) apply "$@" ;;
teardown) teardown "$@" ;;
forget)
	forget "${1:-}"
	say ok
	[ -f "$STATE" ] || rm -rf "$ETC" "$RUN" "$LIB"
	;;
*) say unknown; exit 2 ;;
esac
