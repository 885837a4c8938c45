# By bash's own sockets. `$1…`: address/port.
for target in "$@"; do
  attempt "tcp $target" bash -c ': > /dev/tcp/'"$target"
  attempt "udp $target" bash -c 'echo probe > /dev/udp/'"$target"
done
