# Whether the LAN is within reach after a change that could cut it off: base rules, root queues. Of the machines that answered
# before, one must answer after. Where nobody did, nothing can be told from silence.

# lan_before: at most 4 machines of which the kernel has heard are asked; who answers stands in `answering`. Some let no
# ping in: where none answers that, they are asked by ARP.
lan_before() {
	answering= asked=0
	read -r ours <"/sys/class/net/$lan/address"
	heard=$(ip neigh show dev "$lan" 2>/dev/null | # the kernel may know our own address as a neighbour's
		awk -v ours="$ours" '/lladdr/ && !/FAILED/ && !index($0, ours) { print (/REACHABLE|DELAY|PROBE/ ? 0 : 1), $1 }' |
		sort | head -n 4)
	for word in $heard; do
		case $word in [01]) continue ;; esac
		asked=$((asked + 1))
	done
	[ $asked = 0 ] && return
	for way in ping arping; do
		answering=$(who_answers $heard)
		[ -z "$answering" ] || return 0
	done
}

lan_after() {
	after=0
	[ -n "$answering" ] || return 0
	for try in 1 2; do
		for each in $(who_answers $answering); do
			after=$((after + 1))
		done
		[ $after = 0 ] || return 0
	done
	echo "none of the LAN's machines that answered before answers any more:" $answering >&2
	return 1
}

# All are asked at once, and have a second.
who_answers() {
	for address; do
		case $address in [01]) continue ;; esac
		(answers "$address" >/dev/null 2>&1 && echo "$address") &
	done
	wait
}

answers() {
	case $way in
	ping) ping -c 1 -W 1 -I "$lan" "$1" ;;
	arping) arping -f -c 1 -w 1 -I "$lan" "$1" ;;
	esac
}

show_lan() {
	echo "--- lan"
	set -- $answering
	echo "asked=$asked before=$# after=$after"
	echo "--- = 0"
}
