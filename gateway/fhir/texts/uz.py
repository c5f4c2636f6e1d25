"""The text of each reason for callers, in Uzbek.

In Latin script; o‘ and g‘ are written with U+2018, the tutuq belgisi with U+2019.
"""

from __future__ import annotations

from typing import Final

TEXTS: Final[dict[str, str]] = {
    "bad-request": (
        "Shlyuz bu so‘rovni rad etdi va uni platformaga yetkazmadi. So‘rovning manzili, "
        "sarlavhasi yoki mazmuni diagnostics maydonida ko‘rsatilgan qoidani buzadi. So‘rov "
        "qayta yuborilishidan oldin uni tizimingiz ishlab chiquvchisi tuzatishi kerak."
    ),
    "unknown-path": (
        "Shlyuzda bunday manzil yo‘q, shuning uchun platformaga hech narsa yuborilmadi. "
        "Tizimingiz sozlamalaridagi asosiy manzilni tekshiring."
    ),
    "loop": (
        "Bu so‘rov shu shlyuzdan allaqachon o‘tgan, shuning uchun to‘xtatildi. Hech narsa "
        "yetkazilmadi. Shlyuz administratori sozlamalardagi platforma manzili shlyuzning o‘ziga "
        "olib bormasligini tekshirishi kerak."
    ),
    "misdirected": (
        "Bu so‘rov boshqa xostga yo‘llangan, go‘yo shlyuz uning HTTP proksisi, shuning uchun "
        "platformaga hech narsa yuborilmadi. Tizimingizda asosiy manzil sifatida shlyuzning o‘z "
        "manzilini ko‘rsating. Agar bu nom aslida shlyuzniki bo‘lsa, shlyuz administratori uni "
        "listen.public_url da ko‘rsatishi kerak."
    ),
    "method-not-allowed": (
        "Shlyuz bu manzilda bunday HTTP usulini qabul qilmaydi, shuning uchun platformaga hech "
        "narsa yuborilmadi. Tizimingiz ishlab chiquvchisi Allow sarlavhasida ko‘rsatilgan "
        "usullardan birini ishlatishi kerak."
    ),
    "caller-unauthenticated": (
        "Shlyuz o‘ziga kim murojaat qilayotganini bilmaydi, shuning uchun platformaga hech "
        "narsa yuborilmadi. Tizimingizda shlyuz uchun API kalitini yoki foydalanuvchi nomi va "
        "parolni kiriting yoxud brauzerda qayta kiring. So‘ng so‘rovni yana yuboring."
    ),
    "caller-unknown": (
        "Shlyuz bu API kalitini yoki parolni qabul qilmadi, shuning uchun platformaga hech "
        "narsa yuborilmadi. Uni shlyuz administratori bergani bilan solishtiring, to‘g‘rilang "
        "va so‘rovni yana yuboring."
    ),
    "caller-forbidden": (
        "Tizimingizga shlyuz orqali bunday so‘rov yuborishga ruxsat berilmagan, shuning uchun "
        "platformaga hech narsa yuborilmadi. Qayta yuborish yordam bermaydi: shlyuz "
        "administratoridan ruxsat so‘rang."
    ),
    "header-timeout": (
        "Shlyuz bu so‘rovning sarlavhalarini juda uzoq kutdi, shuning uchun platformaga hech "
        "narsa yuborilmadi. Tizimingiz bilan shlyuz orasidagi tarmoqni tekshiring, so‘ng "
        "so‘rovni yana yuboring."
    ),
    "body-timeout": (
        "Bu so‘rovning ma’lumotlari juda sekin keldi va shlyuz kutishni to‘xtatdi. Platforma "
        "so‘rovni to‘liq olmadi. Tizimingiz bilan shlyuz orasidagi tarmoqni tekshiring, so‘ng "
        "so‘rovni yana yuboring."
    ),
    "payload-too-large": (
        "Bu so‘rovdagi ma’lumotlar shlyuz qabul qiladigan hajmdan katta, shuning uchun u to‘liq "
        "yetkazilmadi. Ma’lumotlarni kichikroq qismlarga bo‘lib yuboring yoki shlyuz "
        "administratoridan ruxsat etilgan hajmni oshirishni so‘rang."
    ),
    "url-too-long": (
        "Bu so‘rovning manzili juda uzun, shuning uchun platformaga hech narsa yuborilmadi. "
        "Uzun qidiruv uchun _search bilan POST usulidan foydalaning yoki shlyuz "
        "administratoridan ruxsat etilgan uzunlikni oshirishni so‘rang."
    ),
    "header-too-large": (
        "Bu so‘rovning sarlavhalari juda katta, shuning uchun platformaga hech narsa "
        "yuborilmadi. Tizimingiz ishlab chiquvchisi sarlavhalarning hajmini yoki sonini "
        "kamaytirishi yoxud shlyuz administratori chegarani oshirishi kerak."
    ),
    "rate-limited": (
        "Tizimingiz qisqa vaqt ichida juda ko‘p so‘rov yubordi. Bu so‘rov platformaga "
        "yuborilmadi. Retry-After sarlavhasida necha soniya ko‘rsatilgan bo‘lsa, shuncha kuting "
        "va uni yana yuboring."
    ),
    "overloaded": (
        "Shlyuz hozir sozlamalarda ruxsat etilgan eng ko‘p sondagi so‘rovni bir vaqtda "
        "bajarmoqda. Bu so‘rov platformaga yuborilmadi. Retry-After sarlavhasida necha soniya "
        "ko‘rsatilgan bo‘lsa, shuncha kuting va uni yana yuboring."
    ),
    "token-refused": (
        "Kirish xizmati (SSO) shlyuzning client_id va client secret (yoki kalit) qiymatlarini "
        "qabul qilmadi, shuning uchun platformaga hech narsa yuborilmadi. Qayta yuborish yordam "
        "bermaydi. Shlyuz administratori client_id va client secret (yoki kalit) qiymatlarini "
        "kirish xizmati bergan qiymatlar bilan solishtirishi kerak."
    ),
    "sso-unavailable": (
        "Hozir kirish xizmatidan (SSO) foydalanib bo‘lmayapti, shuning uchun platformaga hech "
        "narsa yuborilmadi. So‘rovni keyinroq yana yuboring. Bu holat 15 daqiqadan uzoq davom "
        "etsa, shlyuz administratoriga xabar bering."
    ),
    "token-rejected": (
        "Shlyuzning kirish tokeni yangi bo‘lsa ham, platforma uni qabul qilmadi. Platforma bu "
        "so‘rovni bajarmadi. So‘rovni yana yuboring; xato takrorlansa, shlyuz administratori "
        "platformaning yordam xizmatidan bu client_id uchun ruxsat bor-yo‘qligini so‘rashi "
        "kerak."
    ),
    "upstream-unreachable": (
        "Shlyuz platformaga ulana olmadi. Hech narsa yetkazilmadi. So‘rovni keyinroq yana "
        "yuboring; bu holat 15 daqiqadan uzoq davom etsa, shlyuz administratoriga xabar bering: "
        "u platforma bilan aloqani tekshirishi kerak."
    ),
    "upstream-failed": (
        "Platformaning javobi to‘liq kelmasidan oldin u bilan aloqa uzildi. Ma’lumotlar "
        "saqlangan-saqlanmagani noma’lum: so‘rovni qayta yuborishdan oldin yozuvni topib, o‘qib "
        "ko‘ring."
    ),
    "upstream-busy": (
        "Shlyuzning platforma bilan barcha ulanishlari band. Hech narsa yetkazilmadi. So‘rovni "
        "keyinroq yana yuboring. Bu tez-tez takrorlansa, shlyuz administratoriga xabar bering."
    ),
    "upstream-tls": (
        "Platforma bilan himoyalangan ulanishni o‘rnatib bo‘lmadi, shuning uchun hech narsa "
        "yetkazilmadi. Qayta yuborish yordam bermaydi. Shlyuz administratori platformaning "
        "sertifikatini, ishonchli sertifikatlar ro‘yxatini va shlyuzning soatini tekshirishi "
        "kerak."
    ),
    "upstream-timeout": (
        "Platforma o‘z vaqtida javob bermadi. Ma’lumotlar saqlangan-saqlanmagani noma’lum: "
        "so‘rovni qayta yuborishdan oldin yozuvni topib, o‘qib ko‘ring."
    ),
    "upstream-redirect": (
        "Platforma shlyuzni boshqa manzilga yo‘naltirdi, shlyuz esa bunday yo‘naltirishlarga "
        "ergashmaydi. Qayta yuborish yordam bermaydi. Ma’lumotlar katta ehtimol bilan "
        "saqlanmagan: ishonch hosil qilish uchun yozuvni topib, o‘qib ko‘ring. Shlyuz "
        "administratori sozlamalardagi platforma manzilini tekshirishi kerak."
    ),
    "upstream-non-fhir": (
        "Platformaning javobi FHIR formatida emas, shu sababli shlyuz uni uzatmadi. Ma’lumotlar "
        "saqlangan-saqlanmagani aniq emas: so‘rovni qayta yuborishdan oldin yozuvni topib, "
        "o‘qib ko‘ring. Bu holat davom etsa, shlyuz administratoriga xabar bering."
    ),
    "circuit-open": (
        "Platformada uzilishlar bo‘lmoqda, shuning uchun shlyuz unga murojaat qilishni qisqa "
        "vaqtga to‘xtatdi. Hech narsa yetkazilmadi. So‘rovni keyinroq, Retry-After sarlavhasida "
        "ko‘rsatilgan soniyalar o‘tgach, yana yuboring. Bu holat 15 daqiqadan uzoq davom etsa, "
        "shlyuz administratoriga xabar bering."
    ),
    "audit-unavailable": (
        "Shlyuz audit yozuvini saqlay olmayapti, busiz esa platformaga hech narsa yubormaydi. "
        "Shlyuz administratoriga xabar bering: u audit yozuvlari saqlanadigan joyni tekshirishi "
        "kerak. Shundan so‘ng so‘rovni yana yuboring."
    ),
    "search-parameter-ignored": (
        "Platforma kamida bitta qidiruv parametrini hisobga olmadi, shuning uchun uning "
        "javobida bu qidiruvga aloqasi yo‘q yozuvlar bo‘lishi mumkin. Shlyuz bu javobni "
        "uzatmadi. Tizimingiz ishlab chiquvchisi faqat platforma qo‘llab-quvvatlaydigan qidiruv "
        "parametrlaridan foydalanishi kerak."
    ),
    "condition-unsupported": (
        "Bu yozuv faqat ma’lum shart bilan bajarilishi kerak edi, ammo platforma bunday "
        "shartlarga amal qilishini bildirmagan: ma’lumot ikki marta paydo bo‘lishi mumkin edi. "
        "Platformaga hech narsa yuborilmadi. Tizimingiz ishlab chiquvchisi avval qidirishi, so‘ng "
        "shartsiz yozishi kerak."
    ),
    "outbox-full": (
        "Platformaga ulanib bo‘lmayapti, shlyuzning yozish so‘rovlari navbati esa to‘lgan. Bu "
        "so‘rov qabul qilinmadi: ma’lumotlarni o‘zingizda saqlang va uni keyinroq yana "
        "yuboring. Shlyuz administratoriga xabar bering: u navbatni va platforma bilan aloqani "
        "tekshirishi kerak."
    ),
    "shutting-down": (
        "Shlyuz to‘xtatilmoqda yoki qayta ishga tushirilmoqda va bu so‘rovni platformaga "
        "yubormadi. Uni bir daqiqadan so‘ng yana yuboring."
    ),
    "internal": (
        "Shlyuzning ichida xato yuz berdi. Ma’lumotlar saqlangan-saqlanmagani noma’lum: "
        "so‘rovni qayta yuborishdan oldin yozuvni topib, o‘qib ko‘ring. Shlyuz administratoriga "
        "so‘rov identifikatorini (request-id) ayting."
    ),
}

# For requests that only read, where `TEXTS` describes a write whose outcome is unknown.
READS: Final[dict[str, str]] = {
    "upstream-failed": (
        "Platformaning javobi to‘liq kelmasidan oldin u bilan aloqa uzildi. Bu so‘rov "
        "ma’lumotlarni faqat o‘qiydi, uni darhol yana yuborish mumkin. Bu tez-tez takrorlansa, "
        "shlyuz administratoriga xabar bering."
    ),
    "upstream-timeout": (
        "Platforma o‘z vaqtida javob bermadi. Bu so‘rov ma’lumotlarni faqat o‘qiydi, uni "
        "keyinroq yana yuborish mumkin. Bu holat 15 daqiqadan uzoq davom etsa, shlyuz "
        "administratoriga xabar bering."
    ),
    "upstream-redirect": (
        "Platforma shlyuzni boshqa manzilga yo‘naltirdi, shlyuz esa bunday yo‘naltirishlarga "
        "ergashmaydi. Qayta yuborish yordam bermaydi. Shlyuz administratori sozlamalardagi "
        "platforma manzilini tekshirishi kerak."
    ),
    "upstream-non-fhir": (
        "Platformaning javobi FHIR formatida emas, shu sababli shlyuz uni uzatmadi. So‘rovni "
        "keyinroq yana yuboring. Bu holat davom etsa, shlyuz administratoriga xabar bering."
    ),
    "internal": (
        "Shlyuzning ichida xato yuz berdi. Bu so‘rov ma’lumotlarni faqat o‘qiydi, uni darhol "
        "yana yuborish mumkin. Shlyuz administratoriga so‘rov identifikatorini (request-id) "
        "ayting."
    ),
}

# By `GatewayError.advice_key`.
ADVICE: Final[dict[str, str]] = {
    "page": (
        "Sahifa so‘rovni shlyuz sahifalardan qabul qilmaydigan tarzda yubordi, shuning uchun "
        "platformaga hech narsa yuborilmadi. Sahifani ishlab chiquvchi X-Requested-With "
        "sarlavhasini qo‘shishi va so‘rovlarni shlyuzga ma’lum manzildan yuborishi kerak."
    ),
    "surplus-slash": (
        "Bu so‘rovning manzilida ketma-ket ikkita qiya chiziq bor, shuning uchun platformaga "
        "hech narsa yuborilmadi. Tizimingiz sozlamalaridagi "
        "asosiy URL manzil qiya chiziq bilan tugamaydimi? Uni olib tashlang yoki buni tizim "
        "ishlab chiquvchisidan so‘rang."
    ),
    "raw-bytes": (
        "Bu so‘rovning manzilida harflar, masalan kirillcha, kodlanmasdan yozilgan, shuning uchun "
        "platformaga hech narsa yuborilmadi. Tizimingiz ishlab chiquvchisi ularni UTF-8 da foizli "
        "kodlash bilan yozishi kerak: Ш harfi — %D0%A8."
    ),
    "not-utf-8": (
        "Bu so‘rovning manzilida harflar UTF-8 da emas, ehtimol windows-1251 da yozilgan. Qidiruv "
        "hech kimni topmagan bo‘lardi, shuning uchun platformaga hech narsa yuborilmadi. "
        "Tizimingiz ishlab chiquvchisi ularni UTF-8 da foizli kodlash bilan yozishi kerak: Ш harfi "
        "— %D0%A8, %D8 emas."
    ),
    "foreign-page": (
        "So‘rovni boshqa manzildagi veb-sahifa yoki unga o‘xshab Origin sarlavhasini yuboradigan "
        "dastur jo‘natdi, shuning uchun platformaga hech narsa yuborilmadi. Dasturda bu sarlavhani "
        "olib tashlang yoki shlyuz administratoridan unga callers da kalit berishni so‘rang. "
        "Sahifa o‘zingizniki bo‘lsa, u manzilini login.cors_origins da ko‘rsatadi."
    ),
    "body-gone": (
        "Platforma shlyuzning kirish tokenini qabul qilmadi va bu so‘rovni bajarmadi. Shlyuz "
        "tokenni yangisiga almashtiradi, lekin so‘rovni o‘zi ikkinchi marta yubora olmaydi: "
        "bunday so‘rovni to‘liq saqlab turmaydi. So‘rovni yana yuboring; bu ham yordam bermasa, "
        "shlyuz administratori platformaning yordam xizmatidan bu client_id uchun ruxsat bor- "
        "yo‘qligini so‘rashi kerak."
    ),
    "media-type": (
        "Platforma bu so‘rovda ko‘rsatilgan ma’lumot turini qabul qilmadi va so‘rovni qayta "
        "ishlamadi. Tizimingiz Content-Type: application/fhir+json yoki XML uchun mos turni "
        "yuborishi kerak. U buni qila olmasa, shlyuz administratoridan callers da unga "
        "content_type ni belgilashni so‘rang."
    ),
}
