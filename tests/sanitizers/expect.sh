#!/bin/sh
# expect.sh WORDS PROGRAM [ARG...]: passes when the program fails and says WORDS.
words=$1
shift
out=$("$@" 2>&1)
rc=$?
if [ $rc -eq 0 ]; then
    echo "$* exited 0: the planted bug went unseen"
    exit 1
fi
case $out in
*"$words"*) exit 0 ;;
esac
echo "$out"
echo "exit status $rc, but not a word of: $words"
exit 1
