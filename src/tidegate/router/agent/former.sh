# What the service before Tidegate (NetPilot) left: things that bear its own names, and queues that are to a class as it made
# them on every interface. Nothing else is touched, its state files neither: they are there to be taken in.

# former look | remove: a line for each; with `remove` it is gone then, and what could not be taken away has no line. Without
# one of its state files, which it wrote before anything else, nobody looks further: asking iptables can make tables.
former() {
	say ok
	echo "--- former"
	if [ "$1" = remove ] || [ -f "$ROOT/etc/config/netpilot_state.json" ] || [ -f "$ROOT/etc/config/netpilot_groups_state.json" ]; then
		for chain in NETPILOT_WHITELIST NETPILOT_BLACKLIST; do
			its_chain $chain && { [ "$1" = look ] || drop_chain $chain; } && echo "mangle chain $chain"
		done
		[ -n "$NFT" ] && "$NFT" list table inet netpilot && { [ "$1" = look ] || "$NFT" delete table inet netpilot; } >/dev/null &&
			echo "nft table inet netpilot"
		for device in /sys/class/net/*; do
			device=${device##*/}
			its_queue "$device" && { [ "$1" = look ] || "$TC" qdisc del dev "$device" root handle 1:; } && echo "queues of $device"
		done
	fi 2>/dev/null | grep -E '^(mangle|nft table inet netpilot|queues)'
	echo "--- = 0"
	echo "--- end"
}

its_chain() {
	[ -n "$IP4" ] && "$IP4" -t mangle -S "$1" >/dev/null 2>&1
}

drop_chain() {
	for from in FORWARD INPUT OUTPUT PREROUTING POSTROUTING; do
		tries=0
		while [ $tries -lt 100 ] && "$IP4" -t mangle -D $from -j "$1" 2>/dev/null; do
			tries=$((tries + 1))
		done
	done
	"$IP4" -t mangle -F "$1" && "$IP4" -t mangle -X "$1"
}

# Its root with its two classes, 1:1 and 1:10, and no filters but the two that chose them by mark 1 and 98. Ours never has 1:10.
its_queue() {
	case $("$TC" qdisc show dev "$1" root) in "qdisc htb 1: root "*"default 0x1 "*) ;; *) return 1 ;; esac
	[ "$("$TC" class show dev "$1" | cut -d ' ' -f 1-3 | sort | tr '\n' ,)" = "class htb 1:1,class htb 1:10," ] || return 1
	! "$TC" filter show dev "$1" parent 1: |
		grep -vE '^filter (parent 1: )?protocol ip pref 1 fw (chain 0 )?(handle 0x1 classid 1:1 )?$' |
		grep -vqE '^filter (parent 1: )?protocol ip pref 2 fw (chain 0 )?(handle 0x62 classid 1:10 )?$'
}
