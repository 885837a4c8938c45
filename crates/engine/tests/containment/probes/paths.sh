# The same by the shell. `$1…`: the paths.
for path in "$@"; do
  attempt "list $path" ls -d "$path"
  attempt "test $path" test -e "$path"
done
