"""Violations of rules between settings."""

from typing import Final

TABLE: Final = {
    "is set by the gateway itself": ("задаёт сам шлюз", "shlyuzning o‘zi beradi"),
    "remove it": ("уберите", "olib tashlang"),
    "browsers keep the session's cookie for https:// only; http:// is for loopback hosts": (
        "браузеры хранят куки сеанса только для https://; http:// — лишь для этого же компьютера",
        (
            "brauzerlar seans kukisini faqat https:// uchun saqlaydi; http:// faqat shu "
            "kompyuter uchun"
        ),
    ),
    "the gateway answers nowhere else, e.g. https://gateway.clinic.uz/auth/callback": (
        "в другом месте шлюз не отвечает, пример: https://gateway.clinic.uz/auth/callback",
        "shlyuz boshqa joyda javob bermaydi, masalan: https://gateway.clinic.uz/auth/callback",
    ),
    "auth_method private_key_jwt signs with it": (
        "им подписывает auth_method: private_key_jwt",
        "auth_method: private_key_jwt u bilan imzolaydi",
    ),
    "remove it, or choose auth_method client_secret_post": (
        "уберите или выберите auth_method: client_secret_post",
        "olib tashlang yoki auth_method: client_secret_post ni tanlang",
    ),
    "set auth_method: private_key_jwt, or remove it": (
        "укажите auth_method: private_key_jwt или уберите",
        "auth_method: private_key_jwt deb yozing yoki olib tashlang",
    ),
    "is not used with {auth_method}": (
        "не используется с {auth_method}",
        "{auth_method} bilan ishlatilmaydi",
    ),
    "must be 1 with login.enabled while store.url is memory://": (
        "при login.enabled должно быть 1, пока store.url — memory://",
        "login.enabled yoqilgan va store.url memory:// bo‘lsa, 1 bo‘lishi kerak",
    ),
    (
        "each worker would know its own sessions only; name a Redis that they share in "
        "store.url, e.g. redis://127.0.0.1:6379"
    ): (
        (
            "каждый процесс знал бы только свои сеансы; укажите в store.url общий Redis, "
            "например redis://127.0.0.1:6379"
        ),
        (
            "har bir jarayon faqat o‘z seanslarini bilardi; store.url da umumiy Redis ni "
            "ko‘rsating, masalan redis://127.0.0.1:6379"
        ),
    ),
    "collides with /auth, which belongs to the login": (
        "пересекается с /auth, а этот путь занят входом через браузер",
        "brauzer orqali kirish egallagan /auth bilan to‘qnashadi",
    ),
    "choose another path, e.g. /fhir": (
        "выберите другой путь, например /fhir",
        "boshqa yo‘l tanlang, masalan /fhir",
    ),
    "must begin with https://": (
        "должно начинаться с https://",
        "https:// bilan boshlanishi kerak",
    ),
    "must end with /auth/callback": (
        "должно кончаться на /auth/callback",
        "/auth/callback bilan tugashi kerak",
    ),
    "is not used with private_key_jwt": (
        "не используется с private_key_jwt",
        "private_key_jwt bilan ishlatilmaydi",
    ),
    "login.enabled needs it": ("нужно для login.enabled", "login.enabled uchun kerak"),
    "that is not to be had on this operating system": (
        "на этой операционной системе этого нет",
        "bu operatsion tizimda bunday imkoniyat yo‘q",
    ),
    "give client_secret_file: the path of a file that holds the secret": (
        "укажите client_secret_file: путь к файлу с секретом",
        "client_secret_file ni bering: sir yozilgan fayl yo‘li",
    ),
    "audit.sink: syslog sends there": (
        "туда отправляет audit.sink: syslog",
        "audit.sink: syslog shu yerga yuboradi",
    ),
    "set audit.fhir_audit_events: true, or leave this out": (
        "укажите audit.fhir_audit_events: true или уберите это",
        "audit.fhir_audit_events: true deb yozing yoki buni olib tashlang",
    ),
    "known here: {credentials}": (
        "здесь известны: {credentials}",
        "bu yerda ma’lumlari: {credentials}",
    ),
    "callers[{first}] has the same name; give each its own": (
        "callers[{first}] названа так же; дайте каждой своё имя",
        "callers[{first}] nomi ham shunday; har biriga o‘z nomini bering",
    ),
    "one header names the user, another one the purpose": (
        "один заголовок называет пользователя, другой — цель",
        "bir sarlavha foydalanuvchini, boshqasi maqsadni aytadi",
    ),
    "the gateway calls those so who have no name of their own; choose another": (
        "так шлюз называет системы без имени; выберите другое",
        "shlyuz nomi yo‘q tizimlarni shunday ataydi; boshqasini tanlang",
    ),
    "HTTP Basic takes what is behind it for the password (RFC 7617); choose another": (
        "всё после двоеточия HTTP Basic считает паролем (RFC 7617); выберите другое имя",
        (
            "HTTP Basic ikki nuqtadan keyingi hammasini parol deb oladi (RFC 7617); boshqa "
            "nom tanlang"
        ),
    ),
    "set listen.tls.client_ca_file, else no client certificate is asked for": (
        "укажите listen.tls.client_ca_file, иначе сертификат клиента не запрашивается",
        "listen.tls.client_ca_file ni bering, aks holda mijoz sertifikati so‘ralmaydi",
    ),
    "choose an audit.sink for the records themselves": (
        "выберите audit.sink для самих записей",
        "yozuvlarning o‘zi uchun audit.sink tanlang",
    ),
    "is file": ("задано file", "file deb yozilgan"),
    "{not_here}: use syslog or stdout": (
        "{not_here}: используйте syslog или stdout",
        "{not_here}: syslog yoki stdout dan foydalaning",
    ),
    "is more than 1": ("больше 1", "1 dan katta"),
    "{not_here}: use 1": ("{not_here}: используйте 1", "{not_here}: 1 dan foydalaning"),
    "is reachable from other machines, and no callers are named": (
        "доступен с других компьютеров, а в callers никто не указан",
        "boshqa kompyuterlardan ochiq, callers da esa hech kim ko‘rsatilmagan",
    ),
    (
        "listen on 127.0.0.1 or a unix socket, name the callers, or set "
        "listen.allow_anonymous: true if everybody who reaches it may use your "
        "credential"
    ): (
        (
            "оставьте адрес 127.0.0.1 или сокет Unix либо укажите вызывающие системы в "
            "callers; или задайте listen.allow_anonymous: true, если вашими учётными данными "
            "может пользоваться каждый, кто достигает этого адреса"
        ),
        (
            "127.0.0.1 manzili yoki Unix soketini qoldiring yoxud chaqiruvchi tizimlarni "
            "callers da ko‘rsating; agar shu manzilga yeta olgan har kim kirish "
            "ma’lumotlaringizdan foydalanishi mumkin bo‘lsa, listen.allow_anonymous: true deb "
            "yozing"
        ),
    ),
    "is the same as listen.address": ("совпадает с listen.address", "listen.address bilan bir xil"),
    "give it another port; operators' pages never share the callers' port": (
        "дайте другой порт; служебным страницам нужен порт отдельно от вызывающих систем",
        (
            "boshqa port bering; administrator sahifalari chaqiruvchi tizimlar porti bilan "
            "bir portda bo‘lmaydi"
        ),
    ),
    "has no effect without TLS": ("без TLS не действует", "TLS siz ta’siri yo‘q"),
    "give cert_file and key_file too": (
        "укажите также cert_file и key_file",
        "cert_file va key_file ni ham bering",
    ),
    "give at least credentials.default with client_id and client_secret_file": (
        "укажите хотя бы credentials.default с client_id и client_secret_file",
        "kamida credentials.default ni client_id va client_secret_file bilan bering",
    ),
    "audit.sink: file writes there": (
        "туда пишет audit.sink: file",
        "audit.sink: file shu yerga yozadi",
    ),
    "needs audit.fhir_audit_events": (
        "нужно audit.fhir_audit_events",
        "audit.fhir_audit_events kerak",
    ),
    "names no credential": ("таких учётных данных нет", "bunday kirish ma’lumotlari yo‘q"),
    "tracing.authorization would travel unencrypted": (
        "tracing.authorization передавалось бы без шифрования",
        "tracing.authorization shifrlanmay uzatilardi",
    ),
    (
        "give encryption_key_file: 32 bytes as base64url, which openssl rand -base64 "
        "32 | tr '+/' '-_' makes; without it patient data would lie open on the disk"
    ): (
        (
            "укажите encryption_key_file: 32 байта в base64url, их даёт openssl rand -base64 "
            "32 | tr '+/' '-_'; без него данные пациентов лежали бы на диске открыто"
        ),
        (
            "encryption_key_file ni bering: base64url dagi 32 bayt, uni openssl rand -base64 "
            "32 | tr '+/' '-_' yaratadi; usiz bemor ma’lumotlari diskda ochiq yotardi"
        ),
    ),
    "is a unix socket": ("это сокет Unix", "bu Unix soketi"),
    "{not_here}: use host:port": (
        "{not_here}: используйте host:port",
        "{not_here}: host:port dan foydalaning",
    ),
    (
        "http:// is for loopback hosts only; platform.allow_plaintext: true would send "
        "tokens and patient data unencrypted"
    ): (
        (
            "http:// — только для этого же компьютера; с platform.allow_plaintext: true токены "
            "и данные пациентов пошли бы без шифрования"
        ),
        (
            "http:// faqat shu kompyuter uchun; platform.allow_plaintext: true bilan tokenlar "
            "va bemor ma’lumotlari shifrlanmay ketardi"
        ),
    ),
    "it belongs to {name}": ("относится к {name}", "{name} ga tegishli"),
    "it is the one that is used while no callers are named": (
        "именно они используются, пока в callers никто не указан",
        "callers da hech kim ko‘rsatilmaguncha aynan shular ishlatiladi",
    ),
    "and {setting}_file are both given": (
        "задано вместе с {setting}_file",
        "{setting}_file bilan birga berilgan",
    ),
    "keep the file, remove the other": (
        "оставьте файл, а само значение уберите",
        "faylni qoldiring, qiymatning o‘zini olib tashlang",
    ),
    "is used twice": ("использовано дважды", "ikki marta ishlatilgan"),
    "is user_header, too": ("совпадает с user_header", "user_header bilan bir xil"),
    "is a name of the gateway's own": ("это имя занято самим шлюзом", "bu nom shlyuzning o‘ziniki"),
    "holds a colon": ("содержит двоеточие", "ikki nuqta bor"),
    "give password_file": ("укажите password_file", "password_file ni bering"),
    "cannot be checked": ("нельзя проверить", "tekshirib bo‘lmaydi"),
    "is not used with audit.sink off": (
        "не используется с audit.sink off",
        "audit.sink off bilan ishlatilmaydi",
    ),
    "needs audit.fhir_endpoint": ("нужен audit.fhir_endpoint", "audit.fhir_endpoint kerak"),
    "needs outbox.enabled": ("нужно outbox.enabled", "outbox.enabled kerak"),
    "enable it, or leave this out": ("включите или уберите это", "yoqing yoki buni olib tashlang"),
    "give each person an own name": (
        "дайте каждому человеку своё имя",
        "har bir odamga o‘z nomini bering",
    ),
    "choose an audit.sink, or leave this out": (
        "выберите audit.sink или уберите это",
        "audit.sink ni tanlang yoki buni olib tashlang",
    ),
}
