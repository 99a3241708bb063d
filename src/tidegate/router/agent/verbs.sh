# The verbs that end what waits, and who asked for which.

confirm() {
	lock || { say busy "$owner"; return; }
	recover
	if ! read_pending; then
		say none
	elif [ "$pending" != "$1" ]; then
		say pending "$pending"
	elif commit; then
		say ok
		[ -f "$RUN/hooked" ] || hook
	else
		take_back
		say none
	fi
	unlock
	status
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

wanted=${1:-} verb=${2:-} locked=
shift 2 2>/dev/null
case $wanted-$verb in
"$VERSION-$verb" | --tick | --boot) ;;
*)
	say version
	exit 0
	;;
esac
read -r boot </proc/sys/kernel/random/boot_id
tools
case $verb in
probe) probe ;;
observe) heal; say ok; observe_to -s "$@" ;;
status) heal; say ok; status ;;
neighbours) neighbours "$1" ;;
apply) apply "$@" ;;
confirm) confirm "$@" ;;
revert) revert "$@" ;;
heard) rm -f "$ETC/reverted"; say ok ;;
tick | boot)
	exec </dev/null >/dev/null 2>&1 # boot leaves a process behind, for which nobody is to wait
	$verb
	;;
teardown) teardown "$@" ;;
forget)
	forget "${1:-}"
	say ok
	[ -f "$STATE" ] || { unhook; rm -rf "$ETC" "$RUN" "$LIB"; }
	;;
*) say unknown; exit 2 ;;
esac
