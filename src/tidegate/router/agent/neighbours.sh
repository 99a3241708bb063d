# Who is on the network: facts as the router has them, which the controller reads.

# neighbours DEVICE: our own addresses there, the machines that the kernel has heard of, and the leases of dnsmasq and odhcpd.
# Each list is cut where a network of honest people ends. Names in a lease file are strangers' words: none of its lines
# can be taken for one of ours, or have one in it.
neighbours() {
	say ok
	echo "--- addresses"
	ip addr show dev "$1" 2>&1
	echo "--- = $?"
	# Iproute2's tells how long ago; busybox's own does not.
	if find_tool ip -V iproute2; then
		echo "--- neighbours aged"
		"$found" -s neigh show dev "$1" | head -n 10000
	else
		echo "--- neighbours"
		ip neigh show dev "$1" | head -n 10000
	fi 2>/dev/null
	echo "--- = 0"
	echo "--- leases"
	sed 's/---/___/g; s/^/ /' "$ROOT/tmp/dhcp.leases" "$ROOT/tmp/odhcpd.leases" "$ROOT/tmp/hosts/odhcpd" \
		"$ROOT/var/lib/misc/dnsmasq.leases" 2>/dev/null | head -c 1000000
	echo
	echo "--- = 0"
	echo "--- end"
}
