# What calls us at a start and every minute.

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
		grep -qxF "$LINE" "$TAB" 2>/dev/null || edit_crontab put || return
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

# crontab put|take: the crontab with our line, or without.
crontab() {
	if [ "$1" = put ]; then
		echo "$LINE"
		[ ! -f "$TAB" ] || cat "$TAB"
	elif read -r first <"$TAB" && [ "$first" = "$LINE" ]; then
		tail -n +2 "$TAB"
	else
		grep -vxF "$LINE" "$TAB"
	fi
}

# Others' lines are in it: it is replaced once all of the new one is on flash, or stays.
edit_crontab() {
	if [ -f "$TAB" ]; then
		cp -p "$TAB" "$TAB.tidegate"
	else
		: >"$ETC/made-crontab"
	fi
	crontab "$1" >"$TAB.tidegate"
	[ "$(crontab "$1" | sha256sum)" = "$(sha256sum <"$TAB.tidegate")" ] && to_flash "$TAB.tidegate" && mv "$TAB.tidegate" "$TAB" || {
		rm -f "$TAB.tidegate"
		return 1
	}
	# OpenWrt's starts with a crontab only.
	[ ! -x "$ROOT/etc/init.d/cron" ] || "$ROOT/etc/init.d/cron" restart
	return 0
} </dev/null >/dev/null 2>&1
