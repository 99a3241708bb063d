#!/bin/sh
# Tidegate's agent: what runs on a router. POSIX sh; works in busybox ash and in dash.
#
#   agent VERSION probe                                   what this router can do
#   agent VERSION observe DEVICE...                       state document, what waits or was taken back, our table, the queues
#   agent VERSION status                                  the same without table and queues
#   agent VERSION neighbours DEVICE                       our addresses there, who was heard there, and the leases
#   agent VERSION apply GENERATION SHA256 BYTES SECONDS DEVICE...  the bundle on stdin; all of it or nothing; then observe;
#                                                         then "confirm ID" may come on stdin too
#   agent VERSION confirm ID                              the change that waits stands from now on
#   agent VERSION revert ID                               it is taken back now
#   agent VERSION heard [TIME]                            that a change was taken back, or at TIME something was put right, is
#                                                         known and need not be kept
#   agent VERSION copies                                  the state document and its copies
#   agent VERSION mend WAS SHA256                         the document on stdin in the place of the damaged one; WAS: - for none
#   agent VERSION former look|remove                      rules that the service before Tidegate left
#   agent VERSION flows                                   where packets pass by our rules: flow offload
#   agent VERSION teardown KEY DEVICE...                  every trace gone, this file and our log-in key (- for none) too
#   agent VERSION forget KEY                              our log-in key, and this file where no state document is
#   agent - install SHA256                                an agent of another version on stdin takes the place of this one
#   agent gate                                            one of these verbs, as $SSH_ORIGINAL_COMMAND has it, and no other
#   agent - tick                                          every minute: finish or take back what is due, put drift right
#   agent - boot                                          the same at a start, with limited groups held until their limits are in
#
# Promises. A bundle is here in whole, with its checksum right, before anything runs. Changes stand in line behind one lock,
# and only the one that knows the present generation, and means this router, goes in. A change waits to be confirmed, for
# SECONDS: its bundle, with the part that says how it is undone, is on the flash and a timer runs before anything is touched.
# It stands once the state document bears its name; until then it is taken back by whoever comes first after its time: the
# timer, cron, a start of the router, the next verb. It runs apart from its caller and hears no HUP, PIPE, INT or TERM: a cut
# line stops nothing.
#
# On flash: state.json is what was confirmed last, `current` the bundle that puts all of it in place, current.id the first
# digits of its checksum, earlier.1 and earlier.2 those of before, pending/ the bundle and mark (id, generation, boot, deadline
# in seconds of uptime) of what waits and its document, `reverted` the id and generation of what was taken back and nobody has
# heard of, `mended` when and what was put right by itself (queues, rules, document), the same.
#
# Processes are the price on a small router: files are read by the shell itself where it can, and awk splits a bundle once.
# The first line of an answer is "tidegate-agent VERSION WORD ..."; sections follow, "--- NAME", their text, "--- = STATUS".

VERSION=@VERSION@
ROOT=${TIDEGATE_ROOT:-}
LIB=$ROOT/usr/lib/tidegate
ETC=$ROOT/etc/tidegate
RUN=$ROOT/var/run/tidegate
STATE=$ETC/state.json
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077
trap '' HUP PIPE INT TERM

say() {
	echo "tidegate-agent $VERSION $*"
}
