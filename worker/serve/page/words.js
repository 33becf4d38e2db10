// Every label in Korean and English, and how numbers and times are written.

const WORDS = {
  ko: {
    skip: "본문으로 건너뛰기", window: "시간 창", language: "EN", language_title: "Switch to English",
    theme_dark: "어둡게", theme_light: "밝게",
    live: "실시간", connecting: "연결 중", lost: "연결 끊김", refused: "실시간 아님",
    lost_banner: "서버와 연결이 끊겼습니다. 다시 연결하는 중입니다. 계속되면 kbert serve가 실행 중인지 확인하세요.",
    redis_banner: "서버는 켜져 있지만 Redis가 응답하지 않습니다. Redis를 확인하세요. 돌아오면 저절로 이어집니다.",
    busy_banner: "이 주소의 요청이 많아 서버가 잠시 받지 않으므로 숫자가 오래되었을 수 있습니다. 저절로 다시 시도합니다. 계속되면 serve.requests_per_second를 올리세요.",
    stale_banner: "서버가 제대로 답하지 않아 숫자가 오래되었을 수 있습니다. 저절로 다시 시도합니다. 계속되면 kbert serve의 로그를 확인하세요.",
    slow_banner: "이 브라우저가 읽는 속도가 느려 연결이 끊겼습니다. 다시 연결합니다. 계속되면 다른 창을 닫거나 serve.stream_queue를 올리세요.",
    streams_banner: "열린 스트림이 한도에 이르러 서버가 실시간 스트림을 더 열지 않습니다. 숫자는 몇 초마다 읽습니다. 계속되면 serve.max_streams_per_client(주소마다, 프록시 뒤에서는 모두 합쳐)와 serve.max_streams(전체)를 올리세요.",
    token_ask: "이 서버는 토큰이 필요합니다 (serve.token)", token_send: "연결", token_wrong: "토큰이 맞지 않습니다.",
    board: "코인", search: "코인 검색", coin: "코인", time: "시각", index: "심리 지수", actions: "행동", volume: "언급량",
    zscore: "평소 대비", trend: "추이", authors: "작성자", sort_by: "정렬",
    empty_board: "아직 집계된 신호가 없습니다", empty_board_do: "raw.crypto 토픽에 메시지를 보내거나 kbert demo로 시작하세요. kbert run이 실행 중이면 첫 신호와 함께 이 화면이 채워집니다.",
    no_match: "검색과 일치하는 코인이 없습니다.",
    alerts: "경보", alert_index: "심리 지수", alert_volume: "언급량", no_alerts: "평소 범위를 벗어난 코인이 없습니다",
    alerts_warming: "평소 범위는 코인마다 24시간의 기록이 쌓이면 계산됩니다",
    alerts_week: "7일 창에는 견줄 평소 범위가 없습니다. 경보는 더 짧은 창에서 나옵니다",
    feed: "실시간 신호", all_coins: "모든 코인", all_sentiments: "심리 전체", all_actions: "행동 전체",
    min_certainty: "확신도", min_relevance: "관련성", pause: "일시정지", resume: "이어보기", waiting: "개 대기",
    empty_feed: "조건에 맞는 신호를 기다리는 중입니다. 필터를 넓히면 더 많이 보입니다.", reset: "초기화",
    back: "전체 코인", certainty: "확신도", relevance: "관련성", toxicity: "유해성", dispersion: "의견 분산",
    dominance: "시장 점유", balance: "행동 균형", freshness: "마지막 글", emotion: "감정", scores: "점수",
    index_chart: "심리 지수와 언급량", action_chart: "행동 구성", emotion_chart: "감정", score_chart: "확신도 · 관련성 · 유해성",
    messages: "최근 글", empty_messages: "최근 글이 없습니다.", not_found: "이 이름의 코인이 없습니다", hidden_text: "(본문 비공개)",
    young_series: "기록이 몇 분 모이면 그려집니다.", no_series: "이 기간에는 기록이 없습니다.", late_ago: "전",
    strong_pos: "강한 긍정", weak_pos: "약한 긍정", neutral: "중립", weak_neg: "약한 부정", strong_neg: "강한 부정",
    buy: "매수", hold: "관망", sell: "매도", avoid: "회피", info_only: "정보", ask_info: "질문",
    greed: "탐욕", fear: "공포", confidence: "확신", doubt: "의심", anger: "분노", hope: "희망", sarcasm: "풍자",
    narrative: "교통 안전 서사 지수", month: "월", articles: "기사", negatives: "부정", share: "부정 비율", interval: "95% 구간",
    share_high: "상한", share_low: "하한", so_far: "진행 중", standardised: "과거 대비",
    narrative_note: "교통 안전에 대한 부정적 서사로 분류된 기사의 월별 비율 (한국 시각, 윌슨 95% 구간). 과거 대비는 앞선 달들만으로 표준화한 값입니다.",
    empty_narrative: "아직 집계된 기사가 없습니다", empty_narrative_do: "kbert run --pipeline traffic 을 실행하고 raw.traffic 토픽에 기사를 보내세요.",
    s: "초", m: "분", h: "시간", d: "일",
  },
  en: {
    skip: "Skip to content", window: "Window", language: "한", language_title: "한국어로 보기",
    theme_dark: "Dark", theme_light: "Light",
    live: "Live", connecting: "Connecting", lost: "Disconnected", refused: "Not live",
    lost_banner: "The server does not answer. Trying again by itself; if it lasts, check that kbert serve is running.",
    redis_banner: "The server runs, but Redis does not answer. Check Redis; the page goes on by itself when it is back.",
    busy_banner: "The server takes no more requests from this address for now, so these numbers may be old. Trying again by itself; if it lasts, raise serve.requests_per_second.",
    stale_banner: "The server does not answer as it should, so these numbers may be old. Trying again by itself; if it lasts, see the log of kbert serve.",
    slow_banner: "This browser read too slowly and was cut off. Connecting again; if it lasts, close other windows or raise serve.stream_queue.",
    streams_banner: "The server opens no further live stream: as many are open as it allows. The numbers are read every few seconds instead; if it lasts, raise serve.max_streams_per_client (of one address, behind a proxy of all together) and serve.max_streams (of all).",
    token_ask: "This server asks for its token (serve.token)", token_send: "Connect", token_wrong: "The token is wrong.",
    board: "Coins", search: "Find a coin", coin: "Coin", time: "Time", index: "Sentiment index", actions: "Actions", volume: "Messages",
    zscore: "vs. own week", trend: "Trend", authors: "Authors", sort_by: "Sort by",
    empty_board: "No signals yet", empty_board_do: "Send messages to the topic raw.crypto, or start with kbert demo. While kbert run is at work, the board fills with the first signal.",
    no_match: "No coin matches.",
    alerts: "Alerts", alert_index: "index", alert_volume: "volume", no_alerts: "Every coin is within its own band",
    alerts_warming: "A coin's band is known once it has 24 hours of history",
    alerts_week: "A window of 7 days has no band to leave; shorter windows have alerts",
    feed: "Live signals", all_coins: "All coins", all_sentiments: "Sentiment", all_actions: "Action",
    min_certainty: "Certainty", min_relevance: "Relevance", pause: "Pause", resume: "Resume", waiting: "waiting",
    empty_feed: "Waiting for signals that pass. Wider filters show more.", reset: "Reset",
    back: "All coins", certainty: "Certainty", relevance: "Relevance", toxicity: "Toxicity", dispersion: "Dispersion",
    dominance: "Share of market", balance: "Action balance", freshness: "Last message", emotion: "Emotions", scores: "Scores",
    index_chart: "Sentiment index and volume", action_chart: "Action mix", emotion_chart: "Emotions", score_chart: "Certainty · relevance · toxicity",
    messages: "Latest messages", empty_messages: "No recent messages.", not_found: "There is no coin of this name", hidden_text: "(text not published)",
    young_series: "Drawn once there are a few minutes of history.", no_series: "Nothing was said in this time.", late_ago: "ago",
    strong_pos: "strong +", weak_pos: "weak +", neutral: "neutral", weak_neg: "weak −", strong_neg: "strong −",
    buy: "buy", hold: "hold", sell: "sell", avoid: "avoid", info_only: "info", ask_info: "question",
    greed: "greed", fear: "fear", confidence: "confidence", doubt: "doubt", anger: "anger", hope: "hope", sarcasm: "sarcasm",
    narrative: "Traffic narrative index", month: "Month", articles: "Articles", negatives: "Negative", share: "Negative share", interval: "95 % interval",
    share_high: "upper", share_low: "lower", so_far: "so far", standardised: "vs. past",
    narrative_note: "Share of a month's articles that tell a negative narrative about traffic safety (months in Korean time, Wilson's 95 % interval). Against the past: standardised on the months before alone.",
    empty_narrative: "No articles yet", empty_narrative_do: "Start kbert run --pipeline traffic and send articles to the topic raw.traffic.",
    s: "s", m: "m", h: "h", d: "d",
  },
};

export const SENTIMENTS = ["strong_pos", "weak_pos", "neutral", "weak_neg", "strong_neg"];
export const ACTIONS = ["buy", "hold", "sell", "avoid", "ask_info", "info_only"];
export const EMOTIONS = ["greed", "fear", "confidence", "doubt", "anger", "hope", "sarcasm"];
export const WINDOWS = ["1m", "5m", "15m", "1h", "4h", "24h", "7d"];

let language = "ko";

export function setLanguage(code) {
  language = code in WORDS ? code : "ko";
  document.documentElement.lang = language;
}

export function currentLanguage() {
  return language;
}

/** The label of a name. */
export function word(name) {
  return WORDS[language][name] ?? name;
}

/** 1h as 1시간. */
export function windowName(name) {
  return name.slice(0, -1) + word(name.slice(-1));
}

/** A coin's name in this language, and in the other. */
export function coinNames(coin) {
  return language === "ko" ? [coin.korean, coin.english] : [coin.english, coin.korean];
}

export function signed(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? "−" : "+") + text;
}

export function plain(value, digits = 2) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${Math.round(value * 100)}%`;
}

export function count(value) {
  return new Intl.NumberFormat(language, { notation: value >= 100000 ? "compact" : "standard" }).format(value);
}

/** Seconds as 12초, 5분, 3시간. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const [size, unit] = seconds < 60 ? [1, "s"] : seconds < 3600 ? [60, "m"] : seconds < 86400 ? [3600, "h"] : [86400, "d"];
  return `${Math.floor(seconds / size)}${word(unit)}`;
}

export function clock(iso) {
  return new Date(iso).toLocaleTimeString("en-GB");
}
