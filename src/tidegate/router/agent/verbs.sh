# The verbs that end what waits, and who asked for which.

# confirm ID [line]: over the line of the change itself a word is enough.
confirm() {
	lock || { say busy "$owner"; return; }
	recover
	outcome=none
	if read_pending; then
		if [ "$pending" != "$1" ]; then
			outcome="pending $pending"
		elif commit; then
			outcome=ok
			[ -f "$RUN/hooked" ] || hook
		else
			take_back
		fi
	fi
	unlock
	case $2$outcome in
	lineok) say stands "$heir" ;;
	*)
		say $outcome
		[ "$2" = line ] || status
		;;
	esac
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

# heard [TIME]: of a change that was taken back, or of what was put right up to that time, if nothing was since.
heard() {
	if [ $# = 0 ]; then
		rm -f "$ETC/reverted"
	elif [ -f "$ETC/mended" ] && read -r when told <"$ETC/mended" && [ "$when" = "$1" ]; then
		rm -f "$ETC/mended"
	fi
}

# install SHA256: an agent that comes on stdin takes the place of this one, in whole or not at all.
install() {
	umask 022
	new=$LIB/agent.$$
	head -c @LARGEST@ >"$new" && got=$(sha256sum <"$new")
	if [ "${got%% *}" = "$1" ] && to_flash "$new" && mv "$new" "$LIB/agent"; then
		say ok
	else
		rm -f "$new"
		say incomplete
	fi
}

deny() {
	say denied this key may only ask for what the agent does
	exit 1
}

login=root locked=
if [ "$*" = gate ]; then
	login=agent
	plain || deny
	set -f
	set -- $SSH_ORIGINAL_COMMAND
	set +f
	shift 2
fi
[ $# -ge 2 ] || deny
wanted=$1 verb=$2
shift 2
case $wanted-$verb in
"$VERSION-$verb" | --tick | --boot | --install) ;;
*)
	say version
	exit 0
	;;
esac
lawful "$verb" "$@" || deny
read -r boot </proc/sys/kernel/random/boot_id
tools
case $verb in
probe) rm -f "$RUN/tools"; tools; probe ;; # something may have been installed
observe) heal; say ok; observe_to -s "$@" ;;
status) heal; say ok; status ;;
flows) say ok; flows ;;
neighbours) neighbours "$1" ;;
apply) apply "$@" ;;
confirm) confirm "$@" ;;
revert) revert "$@" ;;
former) former "$1" ;;
copies) heal; say ok; copies ;;
mend) mend "$@" ;;
heard) heard "$@"; say ok ;;
install) install "$1" ;;
tick | boot)
	exec </dev/null >/dev/null 2>&1 # boot leaves a process behind, for which nobody is to wait
	$verb
	;;
teardown) teardown "$@" ;;
forget)
	forget "$1" || { say refused "no room on its flash to take our log-in key away"; exit 0; }
	say ok
	[ -f "$STATE" ] || { unhook; rm -rf "$ETC" "$RUN" "$LIB"; }
	;;
esac
