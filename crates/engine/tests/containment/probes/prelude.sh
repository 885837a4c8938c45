# What every shell probe begins with: one line for each attempt, OK or the last word of what the tool said.
attempt() {
  local name=$1 said
  shift
  if said=$("$@" 2>&1 >/dev/null); then said=OK; else said=${said##*: }; fi
  attempts+="${attempts:+,}\"${name//\"/}\":\"$(printf %s "${said:-failed}" | tr -d '"\\\n')\""
}
attempts=
