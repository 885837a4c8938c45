"""A log worth searching: a real one, written by real work.

    belljar run examples/training_log.py

No data set of ours contains a log, and an invented one would prove nothing. So
this example writes one: it trains classifiers on the breast cancer data of
scikit-learn, with Python's logging on. Some do not converge, and say so.
log_search.sh searches the file.
"""

import logging
import time
import warnings

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

logging.basicConfig(filename="training.log", filemode="w", level=logging.INFO, force=True,
                    format="%(asctime)s %(levelname)-7s %(name)s %(message)s")
samples, tumours = load_breast_cancer(return_X_y=True)
folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(samples, tumours))
models = {
    "logistic": lambda c: LogisticRegression(C=c, max_iter=100),
    "svm": lambda c: LinearSVC(C=c, dual=True, max_iter=1000, random_state=0),
    "logistic.scaled": lambda c: make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=100)),
    "svm.scaled": lambda c: make_pipeline(StandardScaler(), LinearSVC(C=c, dual=True, max_iter=1000, random_state=0)),
}

for name, model in models.items():
    log = logging.getLogger(f"train.{name}")
    for c in (0.01, 0.1, 1, 10, 100):
        for fold, (train, test) in enumerate(folds, start=1):
            start = time.perf_counter()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                fitted = model(c).fit(samples[train], tumours[train])
            took = time.perf_counter() - start
            for warning in caught:
                kind = warning.category.__name__
                log.warning("C=%g fold=%d %s: %s", c, fold, kind, str(warning.message).splitlines()[0])
            accuracy = fitted.score(samples[test], tumours[test])
            level = logging.ERROR if accuracy < 0.9 else logging.INFO
            log.log(level, "C=%g fold=%d accuracy=%.4f ms=%.1f", c, fold, accuracy, took * 1000)
logging.shutdown()

lines = open("training.log").read().splitlines()
print("\n".join(lines[:4]))
f"{len(lines)} lines, {sum(' WARNING ' in line for line in lines)} warnings"
