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
	DIALECT= # an older agent did not note it
	[ ! -f "$RUN/tools" ] || . "$RUN/tools"
	[ -z "$DIALECT" ] || return 0
	find_tool nft --version nftables; NFT=$found
	find_tool tc -V iproute2; TC=$found
	find_tool iptables -V iptables; IP4=$found
	find_tool ip6tables -V ip6tables; IP6=$found
	find_tool ipset -V ipset; IPSET=$found
	# Some are built without JSON, and with that can't tell what stands.
	[ -z "$NFT" ] || "$NFT" -j list tables >/dev/null 2>&1 || NFT=
	# What is confirmed here was confirmed in one dialect, whatever was installed since.
	DIALECT=nft PATIENTLY=
	if grep -qs '^--- all-ip4-' "$ETC/current" || { [ -z "$NFT" ] && [ -n "$IP4" ] && [ -n "$IP6" ] && [ -n "$IPSET" ]; }; then
		DIALECT=iptables
		# Where iptables-restore can wait for others that are at it; 1.4 can't.
		! "$IP4-restore" -w 5 --noflush </dev/null 2>/dev/null || PATIENTLY="-w 5"
	fi
	printf '%s\n' "NFT=$NFT" "TC=$TC" "IP4=$IP4" "IP6=$IP6" "IPSET=$IPSET" "DIALECT=$DIALECT" "PATIENTLY='$PATIENTLY'" \
		>"$RUN/tools.$$" && mv "$RUN/tools.$$" "$RUN/tools"
}

probe() {
	say ok
	echo "--- probe"
	echo "kernel=$(uname -r)"
	echo "shell=$(readlink /proc/$$/exe)"
	echo "nft=$([ -z "$NFT" ] || "$NFT" --version)"
	[ $DIALECT = nft ] || probe_iptables
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

# The rules that we need are tried in a chain that nobody is sent to.
probe_iptables() {
	echo "iptables=$("$IP4" -V)"
	"$IPSET" create tgtrial0 hash:mac skbinfo 2>/dev/null && echo "mac_sets=yes" && "$IPSET" destroy tgtrial0
	usable=yes
	for family in ip4 ip6; do
		case $family in ip4) inet=inet ;; *) inet=inet6 ;; esac
		tables=$(tables_of $family)
		"$IPSET" create tgtrial0 hash:ip family $inet skbinfo 2>/dev/null
		"$tables-restore" --noflush 2>/dev/null <<-END || usable=
			*mangle
			:TGTRIAL - [0:0]
			-A TGTRIAL -m mac --mac-source 02:00:00:00:00:01 -j MARK --set-xmark 0x64/0xffffffff
			-A TGTRIAL -j SET --map-set tgtrial0 src --map-mark
			-A TGTRIAL -m set --match-set tgtrial0 dst -j CONNMARK --save-mark
			-A TGTRIAL -m connmark --mark 0x64 -j CLASSIFY --set-class 1:100
			COMMIT
			*filter
			:TGTRIAL - [0:0]
			-A TGTRIAL -p tcp -j REJECT --reject-with tcp-reset
			COMMIT
		END
		for table in mangle filter; do
			"$tables" -t $table -F TGTRIAL
			"$tables" -t $table -X TGTRIAL
		done 2>/dev/null
		"$IPSET" destroy tgtrial0 2>/dev/null
	done
	echo "iptables_usable=$usable"
}

to_flash() {
	sync "$@" 2>/dev/null || sync
}

# unpack BUNDLE FOLDER: its parts, each a file there and nowhere else.
unpack() {
	awk -v to="$2/" '/^--- [a-z][A-Za-z0-9_.-]*$/ { part = to substr($0, 5); printf "" >part; next } { print >part }' "$1"
}
