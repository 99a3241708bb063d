# What stands, what waits, and what of both a controller is told.

# The generation of the state document, whose it is, and as which router: 0 where there is none, of what is no document a word that is no number.
read_generation() {
	generation=0 controller= router=
	[ -f "$STATE" ] || return 0
	{
		read -r line
		read -r line
		read -r third
	} <"$STATE"
	generation=${line#*'"generation": '}
	generation=${generation%%,*}
	controller=${line#*'"controller": "'}
	controller=${controller%%'"'*}
	router=${third#*'"router": "'}
	router=${router%%'"'*}
	case $generation in '' | *[!0-9]*) generation=unreadable controller= ;; esac
}

# What waits to be confirmed: its id, the generation that it makes, and until when; false where nothing does.
read_pending() {
	pending= heir= birthplace= deadline= waits=
	[ -f "$ETC/pending/mark" ] && read -r pending heir birthplace deadline waits <"$ETC/pending/mark" && [ "$waits" = waits ]
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

# The devices, from the third line of the state document.
read_devices() {
	devices=
	[ -f "$STATE" ] || return 0
	{ read -r line && read -r line && read -r line; } <"$STATE"
	lan=${line#*'"lan": "'} wan=${line#*'"wan": "'}
	devices="${lan%%'"'*} ${wan%%'"'*}"
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
	if [ -f "$ETC/mended" ]; then
		read -r mended <"$ETC/mended"
		echo "mended=$mended"
	fi
	[ ! -f "$RUN/unsound" ] || echo "unsound=current"
	echo "--- = 0"
	# What the one who asks could ask for: our verbs, or anything.
	echo "--- login"
	echo $login
	echo "--- = 0"
	# The first line of the document that was confirmed last.
	[ -f "$ETC/current" ] && { read -r line && read -r seal; } <"$ETC/current" && [ "$line" = "--- state" ] || return 0
	echo "--- confirmed"
	echo "$seal"
	echo "--- = 0"
}

# Without its section there is no document.
show_state() {
	[ -f "$STATE" ] || return 0
	echo "--- state"
	cat "$STATE"
	echo "--- = $?"
}

status() {
	show_state
	waiting
	echo "--- end"
}

# observe_to FLAGS DEVICE...: FLAGS are tc's, "-s" for counters or "" without.
observe_to() {
	flags=$1
	shift
	show_state
	waiting
	kernel_to "$flags" "$@"
	echo "--- end"
}

# kernel_to FLAGS DEVICE...: our rules and the queues.
kernel_to() {
	flags=$1
	shift
	rules list
	for device; do
		echo "--- tc $device"
		"$TC" $flags -batch - 2>&1 <<-END
			qdisc show dev $device
			class show dev $device
		END
		echo "--- = $?"
	done
}

# Where packets pass by all rules: flowtables, and OpenWrt's switches for them.
flows() {
	echo "--- flows"
	"$NFT" list flowtables
	for option in flow_offloading flow_offloading_hw; do
		[ "$(uci -q get firewall.@defaults[0].$option)" != 1 ] || echo "uci $option"
	done
	echo "--- = 0"
	echo "--- end"
} 2>/dev/null
