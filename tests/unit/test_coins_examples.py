"""Own examples, apart from the labelled lines: what names a coin, and what only looks as if it did."""

import pytest

from worker.coins import CoinTagger, load_catalogue

# Each with the symbols that it names.
NAMED = """
리플 오른다는 사람들 다 어디갔냐 | XRP
리플 상장한다는 소문 | XRP
리플 감사합니다 수익 500만원 | XRP
리플 트윗 하나에 5% 급등 | XRP
리플 막 오르네 | XRP
리플 게시판 분위기 왜이럼 | XRP
도지 사도 되나요? | DOGE
도지 몇 층에 물렸냐 | DOGE
도지 최고가 경신 | DOGE
비트 박스권 돌파하면 롱 | BTC
비트 차 팔아서 샀다 | BTC
솔 가지고 있는 사람? | SOL
저스트 30원 돌파 | JST
렌더 4시간봉 상승 | RENDER
LINK 좀 사자 | LINK
LINK 에어드랍 | LINK
오늘 담은 캐스파 다 털었다 | KAS
$LINK 클릭 | LINK
LINK/USDT 참고 | LINK
체인링크(LINK) 안내 | LINK
SOL 오늘 왜이럼 | SOL
sol 간다 | SOL
100DOT 샀다 | DOT
gmx 신고가 | GMX
리플도지 둘다 물림 | XRP DOGE
비트도지 | BTC DOGE
비트이더리플도지 | BTC ETH XRP DOGE
비트롱이더숏 | BTC ETH
비트팔고이더샀다 | BTC ETH
비트팔아서이더샀다 | BTC ETH
리플팔고도지샀음 | XRP DOGE
리플에서도지로 갈아탐 | XRP DOGE
비트에서이더로 | BTC ETH
이더대신솔라나 | ETH SOL
비트말고이더 | BTC ETH
비트코인에서이더리움으로 | BTC ETH
리플좀 올려라 | XRP
이더좀 가자 | ETH
비트좀 | BTC
비트였으면 벌써 샀지 | BTC
이더추천 받아요 | ETH
비트횡보 지겹다 | BTC
비트이더라고요 | BTC
비트떡상이더라 | BTC
비트도지지선 뚫음 | BTC
비트코인 골드러시 | BTC
이더냐 비트냐 둘 다 사야되잖아 | ETH BTC
비트이더리플솔 다 팔았다 | BTC ETH XRP SOL
비트이더솔 | BTC ETH SOL
비트랑솔 샀다 | BTC SOL
비트코인이더솔이 낫다 | BTC ETH SOL
이더리움솔 샀다 | ETH SOL
비트솔이더 담음 | BTC SOL ETH
도미 오르기전에 비트사 둘걸 | BTC
그 돈으로 비트사 | BTC
고점에서 비트산 사람 손 | BTC
원화비트만 버팀 | BTC
리플어쩔거임 | XRP
비트 도미 58 찍고 꺾임 | BTC
예전에 0.5이더였는데 | ETH
레이 6불 지지 확인 | RAY
메테오라 상장 첫날 던짐 | MET
ai16z 이름 바꾸고 더 빠짐 | ELIZAOS
UST 페깅 깨짐 | USTC
도그스 캣티즌 또 빠짐 | DOGS CATI
노트코인 햄스터 둘 다 -90% | NOT HMSTR
월루스 디북 매수 | WAL DEEP
큐알엘 2배 | QRL
시바리움 브릿지 해킹 | SHIB
멜라니아 ㅅㅂ | MELANIA
결국 라이트 풀매수 | LTC
톤 비웠음 | TON
아비 갖다버림 | ARB
퀀텀 중국애들이 또 만지작 | QTUM
아비 vs 옵 | ARB OP
아발 대신 코스모스 | AVAX ATOM
아반티스(AVNT), BTC→원화 승격 | AVNT
ETH/USD1 펀비 | ETH
비트가 또 전고점 뚫었네 | BTC
비트코인이라도 좀 사둘걸 | BTC
이더랑 비트 중에 뭐 살까 | ETH BTC
솔라나한테 배신당함 | SOL
리플은요? 3천원 갈까요 | XRP
도지까지 다 팔았다 | DOGE
비트코인캐시 왜 혼자 오르냐 | BCH
비트코인 캐시 단타 성공 | BCH
이더리움클래식 채굴하던 시절 | ETC
이더리움 클래식 4만원 회복 | ETC
비트코인골드 상폐됐음? | BTG
비트코인현물ETF 순유입 3억달러 | BTC
비트도미 60 깨졌다 | BTC
솔라나밈 또 러그 | SOL
리플러들 신났네 | XRP
비트 코인 지금 사도 되나요 | BTC
에이프 코인 물렸습니다 | APE
에이프코인 물타기 | APE
$sol 200불 가즈아 | SOL
#btc 롱 진입 | BTC
KRW-BTC 호가창 봐라 | BTC
BTCUSDT 4시간봉 역헤숄 | BTC
ETH/USDT 숏 진입 | ETH
XRP-USDT 롱 청산 | XRP
BTCUSDT.P 100배 | BTC
SOLUSDTPERP 펀비 미쳤다 | SOL
1000PEPEUSDT 롱 | PEPE
0.5BTC 있으면 부자임? | BTC
32ETH 스테이킹 | ETH
btc랑 eth만 사라 | BTC ETH
USDT로 바꿔놨다 | USDT
테더 발행량 또 늘었네 | USDT
USDC 디페깅 온다 | USDC
클레이 상폐되는거임? | KAIA
클레이튼 홀더 단톡방 | KAIA
KLAY 에서 KAIA로 바뀜 | KAIA
매틱 평단 1500 | POL
MATIC 스왑 언제까지임 | POL
RNDR 티커 바뀐거 아시죠 | RENDER
렌더 롱 쳤다 | RENDER
FTM 가지고 있으면 자동 교환됨? | S
월코 홍채 팔아서 얼마 받음 | WLD
리또속 오늘도 속았다 | XRP
이클 펌핑 끝물 | ETC
라코 반감기 언제임 | LTC
비캐 숏 30배 | BCH
메블 언제 가냐 | MED
무블 시체 냄새 | MBL
체링 매집중 | LINK
아발 20불에 담음 | AVAX
샌박 언락 물량 나온다 | SAND
엑시 옛날엔 20만원이었는데 | AXS
쎄타 쏜다 | THETA
쎄타퓨엘 급등 | TFUEL
온톨로지가스 상한가 | ONG
스팀달러 단타 | SBD
펏지펭귄 12% 상승 | PENGU
하이퍼리퀴드 신고가 | HYPE
하리 60불 돌파 | HYPE
월리피 락업 풀린다 | WLFI
모나드 에드 얼마 받음 | MON
플라즈마 상장빔 | XPL
카이토 야핑 점수 | KAITO
스토리코인 10배 | IP
스토리 IP 업비트 1위 | IP
파이코인 아직도 캐냐 | PI
트럼프코인 반토막 | TRUMP
오피셜트럼프 상폐 가자 | TRUMP
위믹스 상폐빔 탔다 | WEMIX
갈라 25원 뚫었다 | GALA
칠리즈 월드컵까지 존버 | CHZ
보라 상폐당함? | BORA
보라 3000원 물림 | BORA
샌드 평단 4천 구조대 언제오냐 | SAND
플로우 거래지원 종료 떴다 | FLOW
아이콘 물타기 3차 | ICX
스팀 떡상 ㄷㄷ | STEEM
메탈 숏 치지마라 | MTL
하이브 업비트에서 20% 펌핑 | HIVE
알파(ARPA) 급등 이유 | ARPA
솔라(SXP) 유의종목 지정 | SXP
솔라 코인 상폐 확정 | SXP
가스 코인 30% 급등 | GAS
GAS 30% 급등 | GAS
스토리지 매수벽 20억 | STORJ
리스크 코인 상장폐지 | LSK
리스크(LSK) 입출금 중단 안내 | LSK
네오 떡상중 | NEO
엘프 익절 완료 | ELF
골렘 평단 500원 | GLM
시빅 매집봉 떴다 | CVC
아더 급락 무섭다 | ARDR
아크 상폐빔 | ARK
앵커 90층에 사람있어요 | ANKR
커브 손절쳤다 | CRV
메이커 코인 시총 | MKR
그래프 300원 지지 | GRT
웨이브 폭락 실화냐 | WAVES
왁스 거래량 터짐 | WAXP
톤 5불 간다 | TON
톤코인 락업 | TON
링크 30불 간다 | LINK
니어 물린사람 | NEAR
주피터 에어드랍 | JUP
피스네트워크 언락 | PYTH
세이 270 지지 | SEI
수이 3불 깨짐 | SUI
앱토스 재단 덤핑 | APT
아비트럼 0.3불 | ARB
옵티미즘 신저가 | OP
스타크넷 -95% | STRK
지케이싱크 언락 | ZK
레이어제로 상장 | ZRO
에테나 디페깅 | ENA
펜들 예치 | PENDLE
온도 숏 쳤다 | ONDO
온도파이낸스 블랙록 | ONDO
에이브 청산 | AAVE
유니스왑 소각 | UNI
컴파운드 상폐 | COMP
신세틱스 페그 | SNX
비체인 10원 | VET
헤데라 ETF | HBAR
알고랜드 홀더 | ALGO
코스모스 스테이킹 이자 | ATOM
폴카닷 존버 | DOT
카르다노 하드포크 | ADA
에이다 천원 언제 감 | ADA
트론 수수료 인하 | TRX
스텔라루멘 입출금 | XLM
이오스 스왑 언제까지 | EOS
모네로 51% 공격 | XMR
지캐시 700불 | ZEC
대시 상폐 | DASH
봉크 반토막 | BONK
위프 모자 벗겨짐 | WIF
페페 소각 | PEPE
시바이누 0 지우자 | SHIB
시바 0.01원 돌파 | SHIB
플로키 급등 | FLOKI
무뎅 상장 | MOODENG
밀크 물림 | MLK
디카르고 신고가 | DKA
아르고 2연상 | AERGO
썬더코어 유의 | TT
스톰엑스 상폐 | STMX
메디블록 병원 제휴 | MED
엠블 5원 | MVL
퀀텀 하드포크 | QTUM
퀀텀 떡상하네 | QTUM
골드 대신 팍스골드 샀다 | PAXG
바이낸스코인 1000달러 | BNB
bnb 소각 발표 | BNB
비텐 360 돌파 | TAO
비트텐서 반감기 | TAO
월러스 수이 생태계 | WAL SUI
카스파 채굴 | KAS
재스미 일본 | JASMY
이캐시 0 하나 빼라 | XEC
비트토렌트 0.001원 | BTT
이더·솔·수이 동반 상승 | ETH SOL SUI
비트이더 다 털고 나옴 | BTC ETH
우리비트 살아있다 | BTC
갓이더 돌아왔다 | ETH
흑리플 시절 기억남? | XRP
도지 시바 페페 개코인 3형제 | DOGE SHIB PEPE
네오 가스 같이 오름 | NEO GAS
샌드 마나 엑시 P2E 대장 | SAND MANA AXS
비트/테더 페어 보고있음 | BTC
XRP(리플) 급등 | XRP
무브먼트(MOVE) 원화마켓 추가 | MOVE
솔라나에서 이더로 갈아탐 | SOL ETH
렌조 -12% 손절 | REZ
베라체인 3불 이탈 | BERA
셀레스티아 언락 | TIA
인젝티브 바이백 | INJ
이뮤터블 1200원 지지 | IMX
디센트럴랜드 땅값 | MANA
더샌드박스 3층 | SAND
컨플럭스 말고 콘플럭스 | CFX
너보스 8원 | CKB
쿠사마 급등 | KSM
토르체인 해킹 자금 | RUNE
오시스 아니고 오아시스(ROSE) | ROSE
헬륨 코인 지금 사도 됨? | HNT
버추얼 롱 익절 | VIRTUAL
아캄 업비트 펌핑 | ARKM
이더파이 에어드랍 | ETHFI
아이겐레이어 슬래싱 | EIGEN
맨틀 신고가 | MNT
크로노스 3배 | CRO
비에스브이 소송 | BSV
카바 유의종목 | KAVA
썸씽 +17% | SSX
코박 두배 감사 | CBK
펀디엑스 소각 | PUNDIX
밀크 평단 1200원 구조대 언제 | MLK
왁스 유의지정 해제 | WAXP
스파크 단타 3% | SPK
세럼 상폐 확정 | SRM
웨이브 롱 청산당함 | WAVES
하이브 코인 물타기 | HIVE
쿠키 코인 -30% | COOKIE
마스크 언락 물량 조심 | MASK
터보 밈코인 20% 폭등 | TURBO
스시 숏 익절 | SUSHI
캐스퍼 상장폐지 공지 | CSPR
울트라 코인 시총 | UOS
라이터(LIT) 신규 상장 | LIT
에스프레소(ESP) 에어드랍 | ESP
레이 코인 거래량 폭발 | REI
메이플 파이낸스 예치금 | SYRUP
룸네트워크 상폐 | LOOM
케이크 바이백 소각 | CAKE
대시 프라이버시 코인 급등 | DASH
비트가 떨어지면 알트는 더 떨어짐 | BTC
이더 스테이킹 이자 얼마나 나옴? | ETH
솔은 왜 안오르냐 | SOL
도지야 제발 500원만 가자 | DOGE
에이다가 천원이면 영끌한다 | ADA
수이만 들고 있으면 됨 | SUI
리플이라도 살껄 | XRP
앱토스밖에 안남았다 | APT
아비트럼처럼 되는거 아님? | ARB
시바이누조차 오르는데 내껀 왜 | SHIB
위믹스마저 상폐 | WEMIX
카이아한테 기대한 내가 바보 | KAIA
비트랑이더 둘다 담음 | BTC ETH
크로미아 분할매수 시작 | CHR
쿼크체인 8층 물림 | QKC
메타디움 상폐당하나 | META
펑션엑스 스왑 공지 | PUNDIAI
스트라티스 리브랜딩 | STRAX
시아코인 하드포크 | SC
엔진코인 게임 출시 | ENJ
센티넬프로토콜 거래지원 종료 | UPP
토카막네트워크 2연상 | TOKAMAK
피르마체인 20퍼 익절 | FCT2
캐리프로토콜 유의 | CRE
퀴즈톡 상폐 | QTCON
휴먼스케이프 리브랜딩 | HP
마브렉스 락업 | MBX
슈퍼워크 운동하고 돈벌기 | GRND
썬도그 러그 | SUNDOG
더블제로(2Z) 상장 | 2Z
제로지 펀비 -2% | 0G
리네아 에드 물량 | LINEA
솜니아 -60% | SOMI
아스터 신고가 | ASTER
지토 언락 | JTO
레이디움 바이백 | RAY
오르카 상장 | ORCA
알트레이어 락업해제 | ALT
오픈렛저 상장빔 | OPEN
사하라에이아이 폭락 | SAHARA
이니시아 손절 -44% | INIT
바빌론 스테이킹 | BABY
하이퍼레인 급등 | HYPER
메이커다오 스카이 전환 | MKR SKY
32이더 스테이킹 | ETH
8솔 넣음 | SOL
1만비트 보유중 | BTC
5천비트 | BTC
1만이더 옮김 | ETH
100만리플 송금 | XRP
Neo 10% 급등 | NEO
Render 상장 | RENDER
ARBUSD 롱 | ARB
XBTUSD 숏 | BTC
DOTUSD APTUSD VETUSD BNBUSD SHIBUSD | DOT APT VET BNB SHIB
SUSDT 펀비 음수 | S
1000SHIBUSDTPERP 롱 | SHIB
보내는 주소 트론망 맞음? | TRX
이더망으로 보냄 | ETH
비트없이 무슨 | BTC
보라 상장 | BORA
월드콘 떡상 | WLD
오스모 급등 | OSMO
인컴 상장 | ICP
엑스알 급등 | XRP
쎄럼 상장 | SRM
해시플로우(HFT) 상장 | HFT
$HFT 롱 | HFT
SOL 급등 | SOL
하이콘 물량 풀린다 | HYC
드레프 재단 물량 락업 | DREP
에브모스 0원됨 | EVMOS
바이텀 이게 왜 아직도 있음 | BTM
앱코인즈 누가 살려놨냐 | APPC
이더제로 갖고있는 사람 | ETZ
앤크르 리스테이킹 | ANKR
선두가 버추얼에서 빗텐서로 | VIRTUAL TAO
낫코 만원어치 샀는데 | NOT
팟코 다음 유행 뭐냐 | FARTCOIN
디와디 재단 이사가고 | DYDX
쓰레숄드 시총 | T
카르다노 미드나잇 2차분 수령 | ADA NIGHT
"""

# Everyday life in the same words.
FALSE_FRIENDS = """
자세한 내용은 아래 LINK 참고
LINK 클릭하면 가입됨
에어드랍 링크 여기서 지갑 연결
아래 LINK 눌러주세요
LINK 보내줘
LINK 눌러서 에어드랍 받으세요
신한 SOL 앱 오류
SOL 트래블 체크카드 발급
HOT 이슈 모음
선발 ERA 3.21
GMT 시간 기준 9시
AR 안경 출시
DOT 그래픽
도지사 선거 나온다
지금 서울은 몇 도지
리플 알바 구함
리플 댓글 달아줘
이유를 리플보고 알았네 리플이 더 재밌어
비트박스 챔피언
비트 박스 배우고 싶다
비트메인 채굴기 출시
가스 불 켜놓고 나왔다
라이터 불 빌려줘
비트솔루션 채용 공고
코티솔 수치가 높대
코스모스 꽃밭 보러 가자
아톰 장난감 샀다
아이콘 디자인
펌프펀에서 코인 만들어봄
비트판다 프랑크푸르트 상장 추진
솔라나폰 배송 언제 옴
아메리칸비트코인 주가 폭락
디센트 지갑 지문 인식 되나
제2의 루나 공포
비트사운드 이어폰 샀다
폴로 셔츠 직구했는데 관세 붙나
기아 레이 중고 시세 왜케 비쌈
톤 낮춰라 싸우지말고
멜라니아 여사 방한
홀로 캠핑 다녀옴
STO 관련주 2년째 임박
월파 피해 현장 복구
미드나잇 스낵 먹으면서
솔직히 말해서 오늘 장 재미없다
솔로 탈출하고 싶다
리플 달아줘 심심하다
리플 좀 그만 달아
누가 내 글에 리플 하나도 안달아줌
보라색 옷 입고 나갔다
보라 색깔 예쁘다
보라 색상 티셔츠
보라 빛깔 곱다
이더넷 케이블 어디서 사요
비트박스 배우는 중
비트레이트 320은 돼야지
샌드위치 먹고 매매 시작
내일 대장내시경이라 금식중
도트 그래픽 게임 추천좀
아이콘을 눌러서 공지 확인하세요
스팀 게임 할인하네
플로우 차트 그리는 과제
메탈 음악 들으면서 매매
가스비 너무 비싸다
가스요금 폭탄 맞았다
알파 메일 코스프레
링크 보내줘
링크 타고 들어가면 됨
니어 오토마타 엔딩 봤다
하이브 엔터 주가 왜이럼
하이브 공매도 미쳤다
솔라 패널 설치했다
아크 레이더스 같이 하실분
폴 댄스 배우는 여친
페페 짤 개웃기네
루나야 산책 가자
우리집 강아지 이름이 도지임
시바견 키우고 싶다
시바 진짜 짜증나네
트론 영화 재밌음?
온도 좀 올려주세요 추워요
체감 온도 영하 10도
보일러 온도 몇 도로 하세요
파이 먹고 싶다
애플파이 맛집 추천
쿠키 삭제하고 로그인하세요
마스크 쓰고 출근해라
커브 돌다가 사고날뻔
웨이브 구독 해지했다
웨이브 펌 했는데 망했다
왁스로 머리 세팅
엔진 오일 갈아야됨
그래프 색 바꿔주세요
스크롤 올려서 공지 읽으세요
스트라이크 세번 치고 기분 좋다
볼링 스트라이크 쳤다
터보 엔진 중고차 샀다
매직 키보드 샀음
밀크티 마시면서 차트 봄
초코 밀크 맛있다
네오 위즈 게임 재밌냐
매트릭스 네오 간지
골렘 소환해서 보스 잡음
엘프 캐릭터 키우는 중
메이커 수수료가 더 싸요
스케일 큰 영화 보고싶다
밸런스 게임 하자
모멘텀 살아있네 국장
주식 모멘텀 투자 책 추천
리스크 관리가 제일 중요
리스크가 너무 크다
스토리 올렸더니 전여친이 봄
드라마 스토리 미쳤다
앵커가 뉴스 진행하다 웃음
코어 운동 하고옴
코스모스 축제 다녀왔습니다
아톰 만화 명작이지
주피터 목성 관측
비너스 속옷 세일
피크 타임이라 배달 늦음
비트 좋다 이 노래
비트 찍는 래퍼 친구
솔 음이 안올라가
칫솔 샀다
톤 좀 낮춰서 말해
피부톤 보정 앱
수이 누나 방송 켰다
미나 예쁘다
보아 신곡 나왔네
보라 방송 켰냐
스텔라 블레이드 갓겜
팬텀 지갑 설치하는 법
메타 주가 떨어짐
빔 프로젝터 추천좀
상폐빔 조심해라
썬크림 발라라
썬글라스 샀음
자이 아파트 분양가
사인 받았다 개이득
디카 사진 잘나오네
클레이 사격 재밌더라
시빅 중고차 1200에 샀다
앨리스 영화 봄
토르 영화 재밌다
오아시스 내한공연 예매 성공
펌프 유산소 운동
무브 댄스 따라함
스타벅스 커피 마시면서 매매
대시보드 안열림
대쉬했다가 까임
하이파이브 하자
AI 코인 뭐가 좋음?
NFT 끝났음?
DAO 투표 참여하는 법
IP 차단 당함
ID 찾기가 안됨
ATH 언제 깨냐
LA 다저스 이겼다
HP 노트북 추천
OP.GG 전적검색
ETC 비용 정리
APT 노래 중독성 쩐다
KRW 입금 지연
원화 입금 막힘
BTC마켓 없어진다며
USDT 마켓 거래량 없네
비트겟 수수료 이벤트
비트맥스 시절 그립다
비트마인 주가 폭등
바이낸스 알파 에어드랍
업비트 점검 언제 끝남
세력 형님들 올려주세요
손절하고 치킨 먹음
이거 왜 올라
숏 청산당함
다 물렸냐
레이 중고 800만원에 샀다
캐스퍼 풀옵 1800만원 실화냐
보아 콘서트 티켓 12만원
갤럭시 울트라 20% 할인
스파크 중고 300만원
마스크 500원짜리 쓴다
에스프레소 3천원에 마심
쿠키 3천원 주고 삼
스시 2만원어치 먹음
스팀 30% 할인하네 게임 샀다
온도 30도 넘음
파이 5천원 주고 사먹음
커브 150km 나오네
웨이브 구독료 올랐네
하이브 30만원 가나 주식
아이콘 콘서트 예매 성공
하이파이 스피커 30만원
밀크 한잔 5천원
바나나 3천원
앵커 보조배터리 3만원
스토리 조회수 떨어짐
그래프가 계속 내려가네 성적
리스크가 커졌다 요즘
모멘텀이 약해졌다
엔진이 꺼졌다 차 팔아야지
메이커 옷 비싸게 샀다
사인 받으러 줄섬
밸런스 패치 또 하네
스케일링 받으러 치과 감
피크 지났다 휴가철
링크 안열림 다시 보내줘
알파고 이세돌
스탯 찍었다
옵저버 시점으로 봄
엘릭서 롤 아이템
토시 하나 안틀리고
아하 그렇구나
우마무스메 재밌다
심볼 마크 바꿈
팬시점 갔다옴
시럽 빼고 주세요
케이크 예약함
룸메이트가 코인함
카스 한캔 땄다
로즈데이 선물
메타인지 부족
대시캠 설치
리버풀 이겼다
레이저 시술 받음
톤앤매너
시그널 드라마 봄
닷새째 야근
폴더 정리함
빔소프트
썬팅 했다
젠틀몬스터 샀다
코어 운동하다 허리 나감
나노 블럭 샀다
피스 원피스 봄
위드코로나 시절
캐리어 끌고 여행감
세이프 아웃 판정
식스팩 만들기
드리프트 배우는 중
하모니카 불었다
디카페인 커피
카바레 가자
아더에러 패딩
도지사 선거
에이다 러브레이스 책 읽음
트론 레거시 봤음
수이제네리스
삼성 Neo QLED 85인치
Waves 플러그인 세일하네
Render 함수가 두번 불림
Mina 직캠 미쳤다
블랙록 FBTC 순유출
GBTC FETH METH BETH TBTC GUSD AUSD
8비트 음악
64비트 컴퓨터
5만이더라
5천이더니
3억이더군
엔화 캐리 청산
연준 월러 이사
바낸 알파 에드
알파 에드
하방 리스크 매수
롱 레버리지 리스크
숫자를 보라 상장사 실적
이 차트를 보라 급등 전이다
월드콘 먹고 싶다
편의점 월드콘 1+1
DJI 오스모 액션
오스모 포켓3
패시브 인컴
엑스알 글래스
쎄럼 발라
버거코인
HFT 알고리즘 트레이딩
DAG 구조
ROA 개선 전망
OBT 시작
PCI 슬롯
EDR 보안
BMT 결과
SOL 미국배당다우존스 매수
SOL 조선TOP3 급등
"""


@pytest.fixture(scope="module")
def tagger() -> CoinTagger:
    return CoinTagger(load_catalogue())


@pytest.mark.parametrize("line", NAMED.strip().splitlines())
def test_a_coin_is_found_under_every_name(tagger: CoinTagger, line: str) -> None:
    text, symbols = line.rsplit(" | ", 1)
    assert set(tagger.tag(text)) == set(symbols.split())


@pytest.mark.parametrize("text", FALSE_FRIENDS.strip().splitlines())
def test_everyday_words_are_left_alone(tagger: CoinTagger, text: str) -> None:
    assert tagger.tag(text) == []


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("이더 비트 이더 순서대로", ["ETH", "BTC"]),
        ("BTC/KRW, ETH/KRW 둘 다 뚫음", ["BTC", "ETH"]),
        ("스카이로 바뀐 메이커다오, 에이브", ["SKY", "MKR", "AAVE"]),
    ],
)
def test_symbols_come_once_and_in_order_of_first_mention(
    tagger: CoinTagger, text: str, symbols: list[str]
) -> None:
    assert tagger.tag(text) == symbols


_DRESSED = (
    *(
        "KRW-BTC",
        "BTC/KRW",
        "BTC-USDT",
        "BTC_USDT",
        "BTCUSDT",
        "btcusdt",
        "BTCUSDT.P",
        "BTC-USDT-SWAP",
        "BTC-PERP",
    ),
    *(
        "BTCUSDTPERP",
        "$BTC",
        "$btc",
        "#btc",
        "BTC는",
        "btc가",
        "0.5BTC",
        "ＢＴＣ",
        "비트/테더",
        "BTC (KRW, USDT 마켓)",
    ),
)


@pytest.mark.parametrize("text", _DRESSED)
def test_a_ticker_is_found_in_any_dress_and_what_it_is_paid_in_does_not_count(
    tagger: CoinTagger, text: str
) -> None:
    assert tagger.tag(text) == ["BTC"]


@pytest.mark.parametrize(
    "text", ["https://example.com/btc", "www.btc.example", "btc@example.com", "@btc_whale 안녕"]
)
def test_links_addresses_and_handles_name_no_coin(tagger: CoinTagger, text: str) -> None:
    assert tagger.tag(text) == []


def test_names_in_a_row_without_a_space_are_all_found(tagger: CoinTagger) -> None:
    assert tagger.tag("비트이더리플솔라나") == ["BTC", "ETH", "XRP", "SOL"]
    assert tagger.tag("비트이더" * 3) == ["BTC", "ETH"]


def test_decomposed_syllables_read_like_composed_ones(tagger: CoinTagger) -> None:
    assert tagger.tag("\u1107\u1175\u1110\u1173 간다") == ["BTC"]


@pytest.mark.parametrize("line", ["갓비트 오늘도 신고가 찬양하라", "갓비트 오늘만 소형차"])
def test_a_name_behind_a_prefix_stands_in_its_own_word(tagger: CoinTagger, line: str) -> None:
    """The next word was taken for its place, and a faint one there had no weight: an IndexError."""
    assert tagger.tag(line) == ["BTC"]
