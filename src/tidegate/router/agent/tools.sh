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

to_flash() {
	sync "$@" 2>/dev/null || sync
}

# unpack BUNDLE FOLDER: its parts, each a file there and nowhere else.
unpack() {
	awk -v to="$2/" '/^--- [a-z][A-Za-z0-9_.-]*$/ { part = to substr($0, 5); printf "" >part; next } { print >part }' "$1"
}
