# Rules, in two dialects; policy/nftables.py and policy/iptables.py write the parts of a bundle that are loaded here. Each has
#
#   list                what of ours stands, as sections of an answer
#   load FOLDER PREFIX  the rules' parts of a bundle, "" or "undo-" or "all-"; what is loaded may be loaded again
#   stand               whether it looks as if they were there
#   close, open         packets of limited groups are dropped until their queues are in
#   remove              all of ours goes

rules() {
	"${DIALECT}_$@"
}

# ── nft: one transaction, all or nothing

nft_list() {
	echo "--- nft"
	"$NFT" -j list table inet tidegate 2>&1
	echo "--- = $?"
}

# A table made anew has a blink in which a packet that is on its way through the old rules finds their maps empty: the rules
# are taken of one generation, a lookup asks for the generation again (nft_do_chain, nft_genmask_cur). A closed group would be
# taken for guests. So a second table with the same content stands by. What it finds it sets right after the first and
# refuses before it; what it misses, when it goes in its turn, it leaves as it is.
nft_load() {
	[ -s "$1/$2nft" ] || return 0
	if ! grep -qx 'table inet tidegate {' "$1/$2nft" || ! nft_stand; then
		"$NFT" -f "$1/$2nft"
		return
	fi
	: >"$RUN/standby"
	sed -e 's/ inet tidegate/ inet tidegate_standby/' -e 's/^meta mark set 100$/meta mark 0 meta mark set 100/' \
		-e 's/ priority -150;/ priority -149;/' -e 's/ priority -5;/ priority -6;/' "$1/$2nft" | "$NFT" -f - 2>/dev/null
	"$NFT" -f "$1/$2nft"
	loaded=$?
	nft_dismiss
	return $loaded
}

nft_dismiss() {
	"$NFT" delete table inet tidegate_standby 2>/dev/null
	rm -f "$RUN/standby"
}

nft_stand() {
	"$NFT" -t list table inet tidegate >/dev/null 2>&1
}

nft_close() {
	"$NFT" -f - <<-END
		table inet tidegate_boot
		delete table inet tidegate_boot
		table inet tidegate_boot {
		chain forward {
		type filter hook forward priority -4; policy accept;
		meta priority >= 1:0 drop
		}
		}
	END
}

nft_open() {
	"$NFT" delete table inet tidegate_boot
}

nft_remove() {
	for table in tidegate tidegate_boot tidegate_standby; do
		[ -z "$NFT" ] || printf 'table inet %s\ndelete table inet %s\n' $table $table | "$NFT" -f -
	done
}

# ── iptables and ipset: atomic for one table, for one element of a set. They are given their files by name, so that whoever
# clears up after a killed agent sees that they are still at it.

# The chains that hold, and the jumps to them, with their number in their chain.
iptables_list() {
	echo "--- ipset"
	for set in tidegate_ip4 tidegate_ip6 tidegate_mac; do
		"$IPSET" save $set 2>/dev/null
	done
	echo "--- = 0"
	for family in ip4 ip6; do
		echo "--- $family"
		saved=$("$(tables_of $family)-save" 2>&1)
		status=$?
		printf '%s\n' "$saved" | awk '
			/^[*]/ { print $1; split("", number) }
			/^:TIDEGATE_/ { print $1 }
			/^-A / { number[$2]++ }
			/^-A TIDEGATE_/ || / -[jg] TIDEGATE_[A-Z0-9_]+$/ { print number[$2], $0 }'
		echo "--- = $status"
	done
}

# tables_of PART: iptables or ip6tables, by the part's name.
tables_of() {
	case $1 in *ip4*) echo "$IP4" ;; *) echo "$IP6" ;; esac
}

iptables_load() {
	sets_load "$1/$2sets" || return 1
	for part in ip4-filter ip6-filter ip4-mangle ip6-mangle; do
		tables_load "$1/$2$part" || return 1
	done
	sets_load "$1/$2ipset" || return 1
	for part in ip4-filter ip6-filter ip4-mangle ip6-mangle; do
		tables_load "$1/$2after-$part" || return 1
	done
}

sets_load() {
	[ ! -s "$1" ] || "$IPSET" -exist restore -file "$1"
}

# tables_load FILE: one table's part. What begins with "# whole" takes the place of all of ours, of which the rest goes: our
# jumps wherever they are, and chains that it does not have. Chains of others, and their rules, are no part of it.
tables_load() {
	[ -s "$1" ] || return 0
	tables=$(tables_of "${1##*/}")
	{ read -r first; read -r table; } <"$1"
	if [ "$first" != "# whole" ]; then
		"$tables-restore" $PATIENTLY --noflush "$1"
		return
	fi
	"$tables-save" -t "${table#?}" >"$1.saved" || return 1
	awk '
		FILENAME == ARGV[1] && /^:TIDEGATE_/ { stale[substr($1, 2)] = 1 }
		FILENAME == ARGV[1] && !/^-A TIDEGATE_/ && / -[jg] TIDEGATE_[A-Z0-9_]+$/ { sub(/^-A/, "-D"); jumps = jumps $0 "\n" }
		FILENAME == ARGV[1] { next }
		/^-/ { rules = rules $0 "\n"; next }
		/^:/ { delete stale[substr($1, 2)] }
		/^COMMIT/ {
			for (chain in stale) { print ":" chain " - [0:0]"; gone = gone "-X " chain "\n" }
			printf "%s%s%s", jumps, rules, gone
		}
		{ print }' "$1.saved" "$1" >"$1.whole" || return 1
	"$tables-restore" $PATIENTLY --noflush "$1.whole"
}

iptables_stand() {
	for family in ip4 ip6; do
		[ "$("$(tables_of $family)-save" | grep -c '^-A [A-Z]* .*-j TIDEGATE_[A-Z]*$')" = 3 ] || return 1
	done
}

# Which groups are limited stands in the bundle: their connections' marks are sent to their chains in the mangle table. Our
# name has no "TIDEGATE_" in it, so that it stays when everything else is loaded.
iptables_close() {
	for family in ip4 ip6; do
		awk -v part="--- all-$family-mangle" '
			BEGIN { print "*filter\n:TIDEGATE-BOOT - [0:0]" }
			/^--- / { here = $0 == part }
			here && /^-A TIDEGATE_FORWARD .* -j TIDEGATE_GROUP_/ { print "-A TIDEGATE-BOOT -m connmark --mark", $6, "-j DROP" }
			END { print "-I FORWARD -j TIDEGATE-BOOT\nCOMMIT" }' "$ETC/current" |
			"$(tables_of $family)-restore" $PATIENTLY --noflush || return 1
	done
}

iptables_open() {
	for family in ip4 ip6; do
		printf '*filter\n:TIDEGATE-BOOT - [0:0]\n-D FORWARD -j TIDEGATE-BOOT\n-X TIDEGATE-BOOT\nCOMMIT\n' |
			"$(tables_of $family)-restore" $PATIENTLY --noflush
	done
}

iptables_remove() {
	iptables_open
	for part in ip4-filter ip6-filter ip4-mangle ip6-mangle; do
		printf '# whole\n*%s\nCOMMIT\n' "${part#*-}" >"$RUN/$part"
		tables_load "$RUN/$part"
	done
	for set in tidegate_ip4 tidegate_ip6 tidegate_mac; do
		"$IPSET" destroy $set
		"$IPSET" destroy ${set}_new
	done
}
