"""What goes into the engine and comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bandit.errors import InvalidCreativeError

LONGEST_TEXT = 10_000  # characters
TEXT_FIELDS = ("headline", "body", "call_to_action")


@dataclass(frozen=True)
class Creative:
    """One candidate ad.

    Attributes:
        id: The caller's id, unique in its campaign.
        headline: Text, may be empty when another field is not.
        body: Text.
        call_to_action: Text.
        picture: A reference to a picture; kept, not read.
        floor: The least of the campaign's traffic that it is to get, a fraction.
        cap: The most of it, a fraction above 0.

    Raises:
        InvalidCreativeError: The id is empty, a text is no string, all are empty, one has over 10,000
            characters, or floor and cap are no fractions.

    Example:
        >>> Creative("calm", headline="Free returns, always").texts
        {'headline': 'Free returns, always'}
    """

    id: str
    headline: str = field(default="", kw_only=True)
    body: str = field(default="", kw_only=True)
    call_to_action: str = field(default="", kw_only=True)
    picture: str | None = field(default=None, kw_only=True)
    floor: float = field(default=0.0, kw_only=True)
    cap: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise InvalidCreativeError(
                f"expected a creative's id to be a string that is not empty, got {self.id!r}"
            )
        for name in TEXT_FIELDS:
            text = getattr(self, name)
            if not isinstance(text, str):
                raise InvalidCreativeError(
                    f"creative {self.id!r}: expected {name} to be a string, "
                    f"got {type(text).__name__} {text!r}"
                )
            if len(text) > LONGEST_TEXT:
                raise InvalidCreativeError(
                    f"creative {self.id!r}: {name} has {len(text):,} characters; "
                    f"at most {LONGEST_TEXT:,} are allowed"
                )
        if not any(text.strip() for text in (self.headline, self.body, self.call_to_action)):
            raise InvalidCreativeError(
                f"creative {self.id!r}: all texts are empty; give a headline, a body or a call to action"
            )
        are_numbers = all(
            isinstance(x, int | float) and not isinstance(x, bool) for x in (self.floor, self.cap)
        )
        if not (are_numbers and 0 <= self.floor <= self.cap <= 1 and self.cap > 0):  # NaN fails too
            raise InvalidCreativeError(
                f"creative {self.id!r}: expected fractions with 0 <= floor <= cap <= 1 and a cap above 0, "
                f"got floor {self.floor!r} and cap {self.cap!r}"
            )

    @property
    def texts(self) -> dict[str, str]:
        """The fields that have a text."""
        fields = {"headline": self.headline, "body": self.body, "call_to_action": self.call_to_action}
        return {name: text for name, text in fields.items() if text.strip()}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One impression to be filled, for `Engine.select_many`.

    Attributes:
        campaign: The campaign's name.
        context: What is known of the request: names to strings, numbers or booleans.
        decision_id: The caller's id, 1 to 64 printable ASCII characters; None makes one.
        eligible: Ids of the creatives that may be shown; None means all active ones.
        exclude: Ids of creatives that may not be shown.
        request_id: What the decisions of one page view share; logged.
        defer_activation: Whether `activate` will say later that the creative was really shown.
        k: How many distinct creatives, in order; None for one decision that is no list.
    """

    campaign: str
    context: Mapping[str, str | float | bool] = field(default_factory=dict)
    decision_id: str | None = None
    eligible: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()
    request_id: str | None = None
    defer_activation: bool = False
    k: int | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One answer of select.

    Attributes:
        id: The decision's id; report outcomes under it.
        campaign: The campaign's name.
        creative_id: The creative to show.
        propensity: The exact probability with which it was chosen.
        propensities: The same for every eligible creative; sums to 1.
        model_version: The learning step at which the posterior stood.
        decided_at: When, in UTC.
        place: Its place in its list, from 0.
        list_propensity: The exact probability of its whole list in this order; None where there is no list.
        is_control: Whether it was drawn from all eligible creatives alike, to compare with.
    """

    id: str
    campaign: str
    creative_id: str
    propensity: float
    propensities: Mapping[str, float]
    model_version: int
    decided_at: datetime
    place: int = 0
    list_propensity: float | None = None
    is_control: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One report, for `Engine.update_many`.

    Attributes:
        decision_id: Which decision.
        click: Whether it was clicked; None when the report says nothing of it.
        conversion: Whether it converted; None likewise.
        value: What the conversion was worth.
        key: Tells several conversions of one decision apart, such as an order number.
        occurred_at: When it happened, aware; None means now.
        final: No further report of a click will come.
        valid: False says that an earlier report, of this click or of this conversion, is invalid.
    """

    decision_id: str
    click: bool | None = None
    conversion: bool | None = None
    value: float = 1.0
    key: str = ""
    occurred_at: datetime | None = None
    final: bool = False
    valid: bool = True


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """Counts of a creative that ran before, for `Engine.warm_start`.

    Attributes:
        campaign: The campaign's name.
        creative: The creative, with its texts.
        impressions: How often it was shown.
        clicks: Of these.
        context: The context in which; empty when it is not known, or an average.
        conversions: Of the clicks, those that led to one; None when that is not known. Only tuning an encoder
            asks for them.
    """

    campaign: str
    creative: Creative
    impressions: int
    clicks: int
    context: Mapping[str, str | float | bool] = field(default_factory=dict)
    conversions: int | None = None


@dataclass(frozen=True, kw_only=True)
class ImportedCounts:
    """How many creatives, impressions and clicks an import has of one campaign."""

    creatives: int
    impressions: int
    clicks: int


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What `Engine.warm_start` imported.

    Attributes:
        import_id: The import's name.
        is_new: Whether it added its counts; False when it was made before.
        campaigns: Its counts, by campaign.
    """

    import_id: str
    is_new: bool
    campaigns: Mapping[str, ImportedCounts]


@dataclass(frozen=True, kw_only=True)
class ArmReport:
    """One arm as people read it; rates, shares and probabilities are fractions.

    Attributes:
        creative_id: The caller's id.
        status: active, paused or retired.
        impressions: Learnt decisions.
        clicks: Of these.
        conversions: Reported inside their window.
        value: Their sum.
        pending_impressions: Shown, not learnt yet.
        history_impressions: Imported.
        history_clicks: Imported.
        ctr: Posterior mean of the click rate, over the campaign's recent contexts.
        ctr_low: Lower end of its 95 % interval.
        ctr_high: Upper end.
        p_best: Probability that no other active creative has a higher click rate.
        expected_loss: Click rate lost, on average, by showing only this one.
        value_remaining: With a chance of 5 % another active creative's click rate is higher than this one's
            by at least this fraction of it.
        share: Of the campaign's impressions in the last 24 hours; None without any.
        version: The learning step of the estimate.
    """

    creative_id: str
    status: str
    impressions: int
    clicks: int
    conversions: int
    value: float
    pending_impressions: int
    history_impressions: int
    history_clicks: int
    ctr: float
    ctr_low: float
    ctr_high: float
    p_best: float
    expected_loss: float
    value_remaining: float
    share: float | None
    version: int


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What `Engine.settle` did: decisions that became final, and decisions learnt."""

    settled: int
    learnt: int


@dataclass(frozen=True, kw_only=True)
class Swapped:
    """What `Engine.swap_encoder` did.

    Attributes:
        before: Fingerprint of the encoder before; None when the database had none.
        after: That of the one that it has now.
        components: Where its components come from: "shipped" for the encoder, "fitted" to the database's
            texts, or "random" until these are 256.
        campaigns: How many there are.
        creatives: How many there are, each with new features.
    """

    before: str | None
    after: str
    components: str
    campaigns: int
    creatives: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of an estimated logit: its posterior mean and standard deviation, in logits."""

    name: str
    logit: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How a decision was drawn.

    Attributes:
        decision_id: The decision.
        propensity: The probability with which its creative was drawn.
        horizon: H, the impressions an arm that were still expected then; None without an end.
        kappa: κ, how much of that was looked ahead to.
        is_control: Whether it was drawn from all creatives alike, to compare the engine with.
        model_version: The learning step at which the posterior stood then.
        decided_at: When, in UTC.
    """

    decision_id: str
    propensity: float
    horizon: float | None
    kappa: float
    is_control: bool
    model_version: int
    decided_at: datetime


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word of a creative, and what it adds to the logit of its click rate.

    Attributes:
        field: The field it stands in: headline, body, call_to_action.
        start: Where it begins in that field's text.
        end: Where it ends there.
        text: The word as it stands there.
        logit: What it adds, in logits.
    """

    field: str
    start: int
    end: int
    text: str
    logit: float


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What the words of a creative carry of the parts that its text has: content and interaction.

    Attributes:
        texts: Its texts by field, as the encoder reads them.
        words: All words, in reading order.
        masked: Logit of the two parts with every word masked.
        logit: That of the two parts: masked + the words', to a thousandth of the words' sum.
        cut: Fields of which the encoder reads only the beginning.
    """

    texts: Mapping[str, str]
    words: tuple[Word, ...]
    masked: float
    logit: float
    cut: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Where the estimated click rate of a creative comes from.

    Attributes:
        campaign: The campaign's name.
        creative_id: The caller's id.
        parts: base rate, context, content, interaction, campaign, creative; their logits sum to `logit`.
        logit: Posterior mean of the logit of the click rate.
        sd: Its posterior standard deviation; parts are correlated, so it does not follow from theirs.
        ctr: Posterior mean of the click rate, a fraction.
        sentence: The same in words.
        version: The learning step of the estimate.
        draw: How the decision that is explained was drawn; None when none is.
        wording: What each word carries; None when that was not asked for.
    """

    campaign: str
    creative_id: str
    parts: tuple[Part, ...]
    logit: float
    sd: float
    ctr: float
    sentence: str
    version: int
    draw: Draw | None = None
    wording: Wording | None = None
