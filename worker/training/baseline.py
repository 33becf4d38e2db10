"""The baseline that a model has to beat: logistic regression on character n-grams."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from schemas.labels import ACTIONS, SENTIMENTS
from worker.training.datasets import DatasetError, LabelledText

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


class TfidfBaseline:
    """TF-IDF of character 1- to 4-grams and one logistic regression for each of the two classes.

    Raises DatasetError where the texts are too few, or all of one class.
    """

    def __init__(self, train: Sequence[LabelledText]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self._vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), min_df=2, sublinear_tf=True)
        self._sentiment = LogisticRegression(C=10, max_iter=2000, class_weight="balanced")
        self._action = LogisticRegression(C=10, max_iter=2000, class_weight="balanced")
        try:
            features = self._vectors.fit_transform([row.text for row in train])
            self._sentiment.fit(features, [SENTIMENTS.index(row.sentiment_strength) for row in train])
            self._action.fit(features, [ACTIONS.index(row.action_signal) for row in train])
        except ValueError as error:
            raise DatasetError(
                f"TF-IDF cannot learn from {len(train)} texts: "
                f"it needs two sentiments, two actions and words that come twice ({error})"
            ) from error

    def probabilities(self, texts: Sequence[str]) -> tuple["Array", "Array"]:
        """Probabilities of sentiment [N, 5] and action [N, 6]."""
        features = self._vectors.transform(texts)
        return self._sentiment.predict_proba(features), self._action.predict_proba(features)

    def predict(self, texts: Sequence[str]) -> tuple["Array", "Array"]:
        """Indices of sentiment [N] and action [N]."""
        features = self._vectors.transform(texts)
        return self._sentiment.predict(features), self._action.predict(features)
