"""The cause and the remedy of each reason for the documentation, in Uzbek."""

from __future__ import annotations

from typing import Final

# The cause of each reason and what the operator does: the same as in `guidance.GUIDANCE`.
GUIDANCE: Final[dict[str, tuple[str, str]]] = {
    "bad-request": (
        (
            "So‘rov buzilgan, ikki ma’noli yoki xavfli: bir vaqtda Content-Length va "
            "Transfer-Encoding, noto‘g‘ri bo‘lak (chunk), sarlavhada yoki URLda taqiqlangan belgi, "
            "yo‘lda bo‘sh yoki nuqtalardan iborat qism (`listen.base_path`dan keyin darhol "
            "turmagan `//`, `..`), URLda foizli kodlangan UTF-8 bo‘lmagan harflar, oddiy HTTP "
            "portiga yuborilgan TLS."
        ),
        (
            "Shlyuzda hech narsa. Buzilgan qoida diagnostics maydonida aytilgan; uni chaqiruvchi "
            "tizim ishlab chiquvchisiga yetkazing. Bir manzildan bunday so‘rovlar ko‘p kelsa, bu "
            "shlyuz oldidagi boshqa proksiga hujum bo‘lishi mumkin."
        ),
    ),
    "unknown-path": (
        (
            "Yo‘l `listen.base_path` bilan ham, brauzer orqali kirish yoqilgan bo‘lsa, `/auth` "
            "bilan ham boshlanmaydi."
        ),
        (
            "Chaqiruvchi tizimning asosiy URL manzilini diagnostics maydonida aytilgan "
            "`listen.base_path` bilan solishtiring. Odatdagi sabablar: u tushib qolgan, ikki "
            "marta yozilgan (`/fhir/fhir/Patient`) yoki bosh harflar bilan yozilgan (`/FHIR`)."
        ),
    ),
    "loop": (
        (
            "So‘rovda shu shlyuzning o‘z `Via` sarlavhasi bor: `platform.fhir_base_url` yoki "
            "uning ortidagi proksi yana shu yerga olib keladi."
        ),
        (
            "`dhp-gateway doctor` buyrug‘ini bajaring, so‘ng `platform.fhir_base_url` yoki "
            "`platform.proxy_url`ni tuzating."
        ),
    ),
    "misdirected": (
        (
            "So‘rovda butun URL ko‘rsatilgan (`GET http://HOST/fhir/…`), dasturlar o‘z HTTP "
            "proksisiga shunday yuboradi, HOST esa ulanish kelgan manzil ham, "
            "`listen.public_url`dagi xost ham emas."
        ),
        (
            "HOST shlyuzning nomi bo‘lsa, `listen.public_url`ni kiriting. Aks holda chaqiruvchi "
            "tizim shlyuzni boshqa birovga olib boradigan proksi deb biladi: uning asosiy URL "
            "manzili shlyuzning o‘ziniki bo‘lishi kerak."
        ),
    ),
    "method-not-allowed": (
        "`CONNECT`, `TRACE` yoki FHIR ishlatmaydigan boshqa usul.",
        (
            "Shlyuzda hech narsa. Chaqiruvchi tizim ishlab chiquvchisi `Allow`dagi usullardan "
            "birini ishlatadi."
        ),
    ),
    "caller-unauthenticated": (
        (
            "So‘rov API kaliti, parol, mijoz sertifikati yoki brauzer seansisiz keldi, sozlamalar "
            "esa buni talab qiladi."
        ),
        (
            "Chaqiruvchi tizimga kalit bering yoki uning tarmog‘ini `callers`ga qo‘shing. Brauzer "
            "seansi tugagan bo‘lsa, foydalanuvchi qayta kiradi."
        ),
    ),
    "caller-unknown": (
        (
            "Bu API kaliti yoki parol hech bir chaqiruvchi tizimga tegishli emas, masalan, u "
            "faqat bir tomonda almashtirilgan."
        ),
        (
            "Kalitni `api_key_file` yoki `password_file`da ko‘rsatilgan fayl bilan solishtiring; "
            "oxirida ortiqcha qator yo‘qligiga qarang. Bunday xatolar noma’lum manzildan "
            "takrorlansa, auditni ko‘rib chiqing."
        ),
    ),
    "caller-forbidden": (
        (
            "Chaqiruvchi tizim ma’lum, lekin uning tarmog‘i yoki so‘ragan narsasi (amal, resurs "
            "turi, operatsiya yoki boshqa turlarga olib boradigan qidiruv parametri) uning "
            "`callers` yozuvida yo‘q; yoki brauzerdagi sahifa `X-Requested-With` siz yoxud begona "
            "manzildan murojaat qildi."
        ),
        (
            "Audit yozuvini so‘rov identifikatori bo‘yicha toping: unda amal va resurs yozilgan. "
            "Tizimga bu kerak bo‘lsa, `allow` yoki `networks`ni kengaytiring. O‘zingizning "
            "sahifangiz `X-Requested-With`ni yuboradi va `login.cors_origins`dagi manzildan "
            "ochiladi."
        ),
    ),
    "header-timeout": (
        (
            "Sarlavha `limits.header_timeout` ichida kelmadi: aloqa sekin yoki uzilgan, yoxud "
            "ulanish faqat ishlatilayotgandek ko‘rinadi."
        ),
        (
            "Chaqiruvchi tizim bilan shlyuz orasidagi aloqani tekshiring. "
            "`limits.header_timeout`ni faqat aloqa sekinligi ma’lum bo‘lsa oshiring."
        ),
    ),
    "body-timeout": (
        "So‘rov tanasi to‘xtab qoldi yoki `limits.min_body_rate`dan sekin keldi.",
        (
            "Chaqiruvchi tizim bilan shlyuz orasidagi aloqani tekshiring. "
            "`limits.min_body_rate`ni faqat aloqa sekinligi ma’lum bo‘lsa kamaytiring."
        ),
    ),
    "payload-too-large": (
        "So‘rov tanasi `limits.max_body_bytes`dan katta.",
        (
            "Platforma bunday so‘rovlarni qabul qilsa, `limits.max_body_bytes`ni oshiring; aks "
            "holda chaqiruvchi tizim ma’lumotlarni bo‘lib yuboradi."
        ),
    ),
    "url-too-long": (
        "URL `limits.max_url_bytes`dan uzun, deyarli har doim uzun qidiruv sababli.",
        (
            "`POST …/_search` bilan qidirishni maslahat bering yoki `limits.max_url_bytes`ni "
            "oshiring."
        ),
    ),
    "header-too-large": (
        (
            "Bitta sarlavha `limits.max_header_bytes`dan katta, hammasi birgalikda undan to‘rt "
            "baravar katta yoki ularning soni `limits.max_headers`dan ko‘p."
        ),
        (
            "Chaqiruvchi tizim yubormasa ham bo‘ladigan katta cookie yoki tokenni qidiring; aks "
            "holda chegarani oshiring."
        ),
    ),
    "rate-limited": (
        (
            "Chaqiruvchi tizim o‘z `rate_limit` chegarasidan oshdi; yoki audit va metrikalarda "
            "tizim nomi bo‘lmasa, uning manzilidan hech bir tizimga tegishli bo‘lmagan juda ko‘p "
            "so‘rov keldi: buzilgan, noma’lum yo‘lli, noto‘g‘ri kalitli "
            "(`limits.unidentified_rate`)."
        ),
        (
            "Kam uchrasa, hech narsa. Aks holda tizimning `rate_limit` chegarasini oshiring yoki "
            "ishlab chiquvchisidan so‘rovlarni vaqt bo‘yicha taqsimlashni so‘rang. Tizim nomi "
            "bo‘lmasa: auditda ularning birinchilari, manzili va nima noto‘g‘riligi bilan bor; "
            "eski kalitli tizimga yangisi beriladi. To‘g‘ri kalitli so‘rovlar bu vaqtda "
            "o‘taveradi."
        ),
    ),
    "overloaded": (
        (
            "`limits.max_concurrent_requests` yoki tizimning `max_concurrent` chegarasiga "
            "yetildi, ko‘pincha platforma sekinlashgani uchun."
        ),
        (
            "Metrikalarda (/metrics) `dhp_gateway_upstream_duration_seconds`ga qarang. Platforma "
            "tez bo‘lsa, chegarani oshiring yoki ishchi jarayon yoxud replika qo‘shing."
        ),
    ),
    "token-refused": (
        (
            "Kirish xizmati token so‘roviga 400, 401 yoki 403 va OAuth xatosi bilan javob berdi: "
            "client secret noto‘g‘ri yoki muddati o‘tgan, `client_id` unga noma’lum (har bir "
            "muhitning o‘z kirish xizmati bor), yopiq kalitning ochiq qismi unga noma’lum yoki "
            "scope unga noma’lum."
        ),
        (
            "`dhp-gateway token` buyrug‘ini bajaring va kirish xizmati nima deyishini o‘qing. "
            "`client_id` va client secret qiymatlarini berilganlari bilan solishtiring yoki "
            "`/.well-known/jwks.json`dagi kalitlarni u yerda ro‘yxatdan o‘tkazing; `scope` "
            "tayinlanmagan bo‘lsa, uni bo‘sh qoldiring. O‘zgargan sir yoki kalit fayli darhol, "
            "qayta ishga tushirmasdan olinadi."
        ),
    ),
    "sso-unavailable": (
        (
            "Kirish xizmatiga yetib bo‘lmayapti, u juda sekin, 5xx yoki 429 bilan javob bermoqda, "
            "boshqa manzilga yo‘naltirmoqda yoki token bo‘lmagan narsa yubormoqda, amaldagi token "
            "esa qolmagan. OAuth xatosisiz 400, 401 yoki 403 kirish xizmatiniki emas: uni "
            "oldidagi tarmoq ekrani bergan yoki manzil noto‘g‘ri."
        ),
        (
            "`dhp-gateway doctor` buyrug‘ini bajaring. Faqat kirish xizmati ishlamasa, "
            "platformaning yordam xizmatiga xabar bering; u javob berishi bilan shlyuz o‘zi davom "
            "etadi."
        ),
    ),
    "token-rejected": (
        (
            "Platforma yangi tokenga yoki tanasini qayta yuborib bo‘lmaydigan so‘rovga 401 bilan "
            "javob berdi."
        ),
        (
            "`sso` va `platform` bitta muhitga (sinov yoki haqiqiy) tegishli ekanini va soat "
            "to‘g‘riligini tekshiring. So‘ng platformaning yordam xizmatidan shu `client_id` FHIR "
            "API dan foydalana olishini so‘rang."
        ),
    ),
    "upstream-unreachable": (
        (
            "Ulanish yo‘q: nom DNS da topilmadi, port yopiq yoki ulanish "
            "`platform.connect_timeout`dan uzoq davom etdi."
        ),
        (
            "`dhp-gateway doctor` buyrug‘ini bajaring: u sabab nomda, marshrutda yoki portda "
            "ekanini ajratib beradi. Aloqani, tarmoq ekranini va `platform.proxy_url`ni "
            "tekshiring."
        ),
    ),
    "upstream-failed": (
        (
            "So‘rov yuborilgandan keyin ulanish uzildi, yoxud javob to‘liq kelmadi yoki HTTP "
            "qoidalariga mos emas."
        ),
        (
            "Bu tez-tez takrorlansa, yo‘ldagi tarmoq ekranlari va proksilarning kutish vaqtini "
            "`platform.idle_timeout` bilan solishtiring va so‘rov identifikatorlarini "
            "platformaning yordam xizmatiga yetkazing."
        ),
    ),
    "upstream-busy": (
        (
            "Barcha ulanishlar (`platform.max_connections`) `platform.connect_timeout` davomida "
            "band bo‘ldi."
        ),
        (
            "Metrikalarda (/metrics) `dhp_gateway_upstream_duration_seconds`ga qarang. Platforma "
            "tez bo‘lsa, `platform.max_connections`ni oshiring."
        ),
    ),
    "upstream-tls": (
        (
            "Platforma sertifikatining muddati o‘tgan, uni noma’lum markaz bergan yoki u boshqa "
            "nomga berilgan; yoxud mijoz sertifikati qabul qilinmadi; yoxud soat noto‘g‘ri."
        ),
        (
            "`dhp-gateway doctor` buyrug‘ini bajaring. TLS ni ochib tekshiradigan proksi ortida "
            "`platform.ca_file`ni kiriting. Tekshiruvni hech qachon o‘chirmang: token va bemorlar "
            "ma’lumotlari begonaga ketadi."
        ),
    ),
    "upstream-timeout": (
        (
            "Platforma `platform.response_timeout` ichida javob bermadi yoki "
            "`platform.idle_timeout`dan uzoq to‘xtab qoldi."
        ),
        (
            "Barcha so‘rovlar sekinmi yoki faqat ayrim qidiruvlarmi, aniqlang. "
            "`platform.response_timeout`ni faqat platformaga ko‘proq vaqt kerakligi ma’lum bo‘lsa "
            "oshiring va uni chaqiruvchi tizimlarning o‘z kutish vaqtidan kichik qoldiring."
        ),
    ),
    "upstream-redirect": (
        (
            "Platforma yoki uning oldidagi proksi o‘z asosiy manzilidan tashqariga yo‘naltirdi. "
            "Unga ergashilsa, token begonaga tushishi mumkin edi."
        ),
        (
            "`platform.fhir_base_url`ga platforma hujjatlaridagi manzilni kiriting. Yana bir "
            "odatdagi sabab: provayder portali yoki yo‘ldagi proksiga kirish muddati tugagani."
        ),
    ),
    "upstream-non-fhir": (
        (
            "HTML ko‘rinishidagi yoki bo‘sh xato sahifasi, 200 statusli kirish sahifasi yoki "
            "resurs so‘ralgan joyda FHIR bo‘lmagan muvaffaqiyatli javob: FHIR serveri oldidagi "
            "nimadir javob berdi yoki serverning o‘zi buzilgan."
        ),
        (
            "diagnostics maydonidagi `platform-status`ga qarang. 502–504 ni platformaning o‘z "
            "proksisi beradi va ular odatda o‘tib ketadi; 200 yoki 403 bo‘lsa, yo‘ldagi proksi "
            "yoki portalni qidiring; o‘tib ketmaganini platformaning yordam xizmatiga xabar "
            "qiling."
        ),
    ),
    "circuit-open": (
        (
            "Platformaga yuborilgan oxirgi so‘rovlarning juda ko‘pi bajarilmadi "
            "(`circuit_breaker`). Shlyuz tanaffus qiladi, so‘ng bitta so‘rov bilan urinib "
            "ko‘radi."
        ),
        (
            "Undan oldin kelgan sabablarni metrikalardan (/metrics, `dhp_gateway_requests_total`) "
            "qarang: aybdor o‘shalar. Tanaffus o‘zi tugaydi."
        ),
    ),
    "audit-unavailable": (
        (
            "Audit yozuvini saqlab bo‘lmayapti va `audit.on_failure` qiymati `block`: disk "
            "to‘lgan, huquq yetishmaydi yoki syslog serveriga yetib bo‘lmayapti."
        ),
        (
            "Diskda joy bo‘shating yoki yozuvlar saqlanadigan joyni tuzating. `audit.on_failure: "
            "drop` so‘rovlarni yozuvsiz o‘tkazadi; buni ma’lumotlar himoyasi uchun javobgarlar "
            "bilan birga hal qiling."
        ),
    ),
    "search-parameter-ignored": (
        (
            "`fhir.search_guard` qiymati `block`, platforma javobining `self` havolasida "
            "tanlov parametri yo‘q yoki kamroq marta bor, yoxud `outcome` yozuvi u "
            "ishlatilmaganini aytadi, yoxud u CapabilityStatement da yo‘q yoki "
            "`fhir.unfiltered`da bor. Bu himoyasiz tizim ortiqcha yozuvlarni qidiruv natijasi deb "
            "olgan bo‘lardi."
        ),
        (
            "diagnostics maydonidagi nomlarni chaqiruvchi tizim ishlab chiquvchisiga yetkazing. "
            "Platforma qo‘llab-quvvatlaydigan parametrlar uning `metadata`sida sanalgan."
        ),
    ),
    "condition-unsupported": (
        (
            "`fhir.condition_guard` qiymati `block`, platformaning CapabilityStatement hujjati bu "
            "tur uchun shartli yozishni bildirgani ma’lum emas: `If-None-Exist`, id o‘rnidagi "
            "so‘rov yoki Bundle ichidagi `ifNoneExist`. Platforma shartni hisobga olmay, yana bir "
            "marta yaratgan bo‘lardi. Milliy platforma buni hech bir tur uchun bildirmagan."
        ),
        (
            "diagnostics maydonidagi nomlarni chaqiruvchi tizim ishlab chiquvchisiga yetkazing: "
            "avval identifikator bo‘yicha qidirish, so‘ng yaratish yoki id bo‘yicha `If-Match` "
            "bilan yangilash kerak. `fhir.condition_guard: warn` bo‘lsa, bunday yozuvlar "
            "yuboriladi va sarlavhada bu aytiladi."
        ),
    ),
    "outbox-full": (
        (
            "Navbat `outbox.max_entries` yoki `outbox.max_bytes` chegarasiga yetdi yoki tizim o‘z "
            "ulushini (`outbox.max_share`) to‘ldirdi: platformaga ko‘pdan beri yetib bo‘lmayapti."
        ),
        (
            "Avval aloqani tiklang: kutayotganlar shundan so‘ng o‘zi yetkaziladi. `dhp-gateway "
            "outbox list` odam qarorini kutayotganlarni ko‘rsatadi. Diskda joy bo‘lsa, "
            "chegaralarni oshiring."
        ),
    ),
    "shutting-down": (
        "Shlyuz to‘xtatilmoqda yoki qayta ishga tushirilmoqda.",
        (
            "Hech narsa. Replikalar bir nechta bo‘lsa, bunisini to‘xtatishdan oldin yuk "
            "taqsimlagichdan chiqaring."
        ),
    ),
    "internal": (
        "Shlyuz dasturidagi xato.",
        (
            "Logdan xato izini (traceback) so‘rov identifikatori bo‘yicha toping va uni versiya "
            "(`dhp_gateway_build_info`) bilan birga xabar qiling."
        ),
    ),
}
