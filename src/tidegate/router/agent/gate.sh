# What may be asked: the words of each verb, each of a strict kind. Nothing else is run, whoever asks.

# Whether what was asked for in place of the gate, with a key that is let in to us alone, is us with plain words. They are cut
# at blanks and by no other rule of a shell, and no sign that means something to one is let through.
plain() {
	[ ${#SSH_ORIGINAL_COMMAND} -le 500 ] || return 1
	case ${SSH_ORIGINAL_COMMAND-} in
	"/bin/sh $0 "*[!A-Za-z0-9+/=._\ -]*) return 1 ;;
	"/bin/sh $0 "*\ *) return 0 ;;
	esac
	return 1
}

# lawful VERB WORD...: whether the words are a verb's.
lawful() {
	case $1 in
	probe | status | flows | copies) [ $# = 1 ] ;;
	heard) [ $# = 1 ] || { [ $# = 2 ] && number "$2"; } ;;
	neighbours) [ $# = 2 ] && devices "$2" ;;
	observe) shift && devices "$@" ;;
	apply) number "${2-}" && hex 64 "${3-}" && number "${4-}" && number "${5-}" && shift 5 && devices "$@" ;;
	confirm) [ $# = 2 ] && hex 16 "$2" ;;
	former) [ $# = 2 ] && { [ "$2" = look ] || [ "$2" = remove ]; } ;;
	mend) [ $# = 3 ] && { [ "$2" = - ] || hex 64 "$2"; } && hex 64 "$3" ;;
	revert) hex 16 "${2-}" && shift 2 && devices "$@" ;;
	teardown) key "${2-}" && shift 2 && devices "$@" ;;
	forget) [ $# = 2 ] && key "$2" ;;
	install) [ $# = 2 ] && hex 64 "$2" ;;
	tick | boot) [ $# = 1 ] && [ $login = root ] ;;
	*) return 1 ;;
	esac
}

number() {
	case $1 in '' | *[!0-9]* | ????????????????*) return 1 ;; esac
}

hex() {
	[ ${#2} = "$1" ] || return 1
	case $2 in *[!0-9a-f]*) return 1 ;; esac
}

# The base64 text of a log-in key; "-" for none.
key() {
	case $1 in -) ;; '' | *[!A-Za-z0-9+/=]*) return 1 ;; esac
}

devices() {
	[ $# -le 8 ] || return 1
	for word; do
		case $word in '' | [!A-Za-z0-9]* | *[!A-Za-z0-9_.-]* | ????????????????*) return 1 ;; esac
	done
}
