# A log searched with grep, sort, uniq and awk.
#
#     belljar run examples/training_log.py
#     belljar run --language shell examples/log_search.sh --file belljar-out/training.log
#
# A line of the log:
#   2026-03-01 12:00:00,123 WARNING train.svm C=10 fold=3 ConvergenceWarning: …
#   date       time         level   logger    message
set -euo pipefail
export LC_ALL=C  # sorts the same way everywhere
log=training.log

echo "== How many lines of each level?"
awk '{ print $3 }' "$log" | sort | uniq -c | sort -rn | tee levels.txt

echo "== Which loggers warn, and how often?"
grep ' WARNING ' "$log" | awk '{ print $4 }' | sort | uniq -c | sort -rn | tee warnings.txt

echo "== What do they say? (numbers left out, so that like meets like)"
grep ' WARNING ' "$log" | cut -d' ' -f7- | sed -E 's/[0-9]+(\.[0-9]+)?/N/g' | sort | uniq -c | sort -rn | sed -n 1,5p

echo "== The five worst results"
grep -o 'train\.[a-z.]* C=.* accuracy=[0-9.]*' "$log" | sort -t= -k4,4n -k1,1 | sed -n 1,5p | tee worst.txt

echo "== Mean accuracy of each model, best first"
awk '/accuracy=/ { split($7, a, "="); sum[$4] += a[2]; count[$4]++ }
     END { for (name in sum) printf "%.4f %s (%d fits)\n", sum[name] / count[name], name, count[name] }' "$log" |
    sort -rn | tee models.txt
