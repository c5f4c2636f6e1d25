"""Texts in three languages that say what operators do about a reason among the last errors.

`gateway.fhir.texts` has the texts for users of the calling system; docs/errors.md has more details.
"""

from __future__ import annotations

from typing import Final

_EN: Final = {
    "bad-request": "Nothing here. Pass the `diagnostics` on to the vendor of the calling system.",
    "unknown-path": "Compare the caller's base URL with `listen.base_path`.",
    "loop": "Run `dhp-gateway doctor`, then correct `platform.fhir_base_url` or its proxy.",
    "misdirected": "The caller uses the gateway as an HTTP proxy, by a name that is not known: "
    "set `listen.public_url`, or correct its base URL.",
    "method-not-allowed": "Nothing here. The vendor of the calling system has to correct it.",
    "caller-unauthenticated": "Give the caller its key, or add its network to `callers`.",
    "caller-unknown": "Compare the caller's key with the settings. Failures from an unknown "
    "address: look at the audit.",
    "caller-forbidden": "Look up the audit record; extend `allow` or `networks` if the caller "
    "should have it.",
    "header-timeout": "Check the line between the caller and the gateway.",
    "body-timeout": "Check the line between the caller and the gateway.",
    "payload-too-large": "Raise `limits.max_body_bytes` if the platform takes such bodies.",
    "url-too-long": "Have the caller search with POST, or raise `limits.max_url_bytes`.",
    "header-too-large": "Look for a large cookie or token that the caller need not send.",
    "rate-limited": "Nothing, if it is rare. Else raise the caller's `rate_limit`; where no caller "
    "is named, look in the audit for wrong keys and addresses.",
    "overloaded": "If the platform is fast, raise the limit or add a worker.",
    "token-refused": "Run `dhp-gateway token`; compare `client_id` and secret with those issued.",
    "sso-unavailable": "Run `dhp-gateway doctor`. If only the sign-in service fails, tell the "
    "platform's support.",
    "token-rejected": "Check that `sso` and `platform` are of one environment and the clock is "
    "right; then ask the platform's support.",
    "upstream-unreachable": "Run `dhp-gateway doctor`; check line, firewall and proxy.",
    "upstream-failed": "If it is frequent, check time-outs of firewalls on the way and tell the "
    "platform's support.",
    "upstream-busy": "If the platform is fast, raise `platform.max_connections`.",
    "upstream-tls": "Run `dhp-gateway doctor`; behind an inspecting proxy set `platform.ca_file`. "
    "Never switch the check off.",
    "upstream-timeout": "See whether everything is slow or only some searches; tell the "
    "platform's support if it lasts.",
    "upstream-redirect": "Set `platform.fhir_base_url` to the documented address; look for a "
    "portal or proxy on the line.",
    "upstream-non-fhir": "502 to 504 usually pass. Otherwise check `platform.fhir_base_url` with "
    "`dhp-gateway doctor`; look for a proxy or portal on the line.",
    "circuit-open": "Look at the other errors here: they name the cause. The gateway tries again "
    "by itself.",
    "audit-unavailable": "Free the disk or mend the audit's server.",
    "search-parameter-ignored": "Pass the `diagnostics` on to the vendor of the calling system.",
    "condition-unsupported": "Pass the `diagnostics` on to the vendor of the calling system.",
    "outbox-full": "Mend the line to the platform; raise the outbox's limits if there is space.",
    "shutting-down": "Nothing.",
    "internal": "Find the `Traceback` in the log and report it with the version.",
    "platform-error": "Nothing here. If it lasts, tell the platform's support.",
    "platform-refusal": "404 and 422 are as a rule the caller's mistake: the answer says which. "
    "With 401 and 403 run `dhp-gateway doctor`, then ask the platform's support.",
}
_RU: Final = {
    "bad-request": "Здесь ничего. Передайте `diagnostics` разработчику вызывающей системы.",
    "unknown-path": "Сравните базовый URL системы с `listen.base_path`.",
    "loop": "Выполните `dhp-gateway doctor`, затем исправьте `platform.fhir_base_url` или прокси.",
    "misdirected": "Система обращается к шлюзу как к прокси HTTP под неизвестным именем: задайте "
    "`listen.public_url` или исправьте её базовый URL.",
    "method-not-allowed": "Здесь ничего. Исправить должен разработчик вызывающей системы.",
    "caller-unauthenticated": "Выдайте системе ключ или добавьте её сеть в `callers`.",
    "caller-unknown": "Сравните ключ системы с настройками. Если адрес неизвестен, посмотрите "
    "журнал аудита.",
    "caller-forbidden": "Найдите запись аудита; расширьте `allow` или `networks`, если доступ "
    "нужен.",
    "header-timeout": "Проверьте линию между системой и шлюзом.",
    "body-timeout": "Проверьте линию между системой и шлюзом.",
    "payload-too-large": "Увеличьте `limits.max_body_bytes`, если платформа принимает такой объём.",
    "url-too-long": "Пусть система ищет через POST, или увеличьте `limits.max_url_bytes`.",
    "header-too-large": "Найдите большой cookie или токен, который системе не нужно отправлять.",
    "rate-limited": "Ничего, если это редко. Иначе увеличьте `rate_limit` системы; если система не "
    "названа, найдите в журнале аудита неверные ключи и адреса.",
    "overloaded": "Если платформа отвечает быстро, увеличьте предел или добавьте процесс.",
    "token-refused": "Выполните `dhp-gateway token`; сравните `client_id` и секрет с выданными.",
    "sso-unavailable": "Выполните `dhp-gateway doctor`. Если не работает только сервис входа, "
    "сообщите службе поддержки платформы.",
    "token-rejected": "Проверьте, что `sso` и `platform` из одной среды и часы верны; затем "
    "спросите службу поддержки платформы.",
    "upstream-unreachable": "Выполните `dhp-gateway doctor`; проверьте линию, межсетевой экран и "
    "прокси.",
    "upstream-failed": "Если часто, проверьте тайм-ауты межсетевых экранов и сообщите службе "
    "поддержки платформы.",
    "upstream-busy": "Если платформа отвечает быстро, увеличьте `platform.max_connections`.",
    "upstream-tls": "Выполните `dhp-gateway doctor`; за прокси с проверкой трафика задайте "
    "`platform.ca_file`. Никогда не отключайте проверку.",
    "upstream-timeout": "Выясните, медленно работает всё или только некоторые поиски; если это "
    "длится, сообщите службе поддержки платформы.",
    "upstream-redirect": "Задайте в `platform.fhir_base_url` адрес из документации; поищите портал "
    "или прокси на линии.",
    "upstream-non-fhir": "502–504 обычно проходят сами. Иначе проверьте `platform.fhir_base_url` "
    "командой `dhp-gateway doctor`; поищите прокси или портал на линии.",
    "circuit-open": "Посмотрите остальные ошибки здесь: они показывают причину. Шлюз попробует "
    "снова сам.",
    "audit-unavailable": "Освободите диск или почините сервер аудита.",
    "search-parameter-ignored": "Передайте `diagnostics` разработчику вызывающей системы.",
    "condition-unsupported": "Передайте `diagnostics` разработчику вызывающей системы.",
    "outbox-full": "Восстановите связь с платформой; увеличьте пределы очереди, если есть место.",
    "shutting-down": "Ничего.",
    "internal": "Найдите в логе `Traceback` и сообщите о нём вместе с версией.",
    "platform-error": "Здесь ничего. Если это длится, сообщите службе поддержки платформы.",
    "platform-refusal": "404 и 422 обычно означают ошибку вызывающей системы: какую, сказано в "
    "ответе. При 401 и 403 выполните `dhp-gateway doctor`, затем спросите службу поддержки "
    "платформы.",
}
_UZ: Final = {
    "bad-request": "Bu yerda hech narsa. `diagnostics` matnini tizim ishlab chiquvchisiga "
    "yuboring.",
    "unknown-path": "Tizimning asosiy URL manzilini `listen.base_path` bilan solishtiring.",
    "loop": "`dhp-gateway doctor` buyrug‘ini bajaring, so‘ng `platform.fhir_base_url` yoki "
    "proksini to‘g‘rilang.",
    "misdirected": "Tizim shlyuzga HTTP proksi sifatida noma’lum nom bilan murojaat qilmoqda: "
    "`listen.public_url` ni belgilang yoki uning asosiy URL manzilini tuzating.",
    "method-not-allowed": "Bu yerda hech narsa. Uni tizim ishlab chiquvchisi tuzatadi.",
    "caller-unauthenticated": "Tizimga kalit bering yoki uning tarmog‘ini `callers`ga qo‘shing.",
    "caller-unknown": "Tizim kalitini sozlamalar bilan solishtiring. Manzil noma’lum bo‘lsa, "
    "auditni ko‘ring.",
    "caller-forbidden": "Audit yozuvini toping; ruxsat kerak bo‘lsa, `allow` yoki `networks`ni "
    "kengaytiring.",
    "header-timeout": "Tizim bilan shlyuz orasidagi aloqani tekshiring.",
    "body-timeout": "Tizim bilan shlyuz orasidagi aloqani tekshiring.",
    "payload-too-large": "Platforma bunga rozi bo‘lsa, `limits.max_body_bytes`ni oshiring.",
    "url-too-long": "Tizim POST bilan qidirsin yoki `limits.max_url_bytes`ni oshiring.",
    "header-too-large": "Tizim yuborishi shart bo‘lmagan katta cookie yoki tokenni qidiring.",
    "rate-limited": "Kam uchrasa, hech narsa. Aks holda tizimning `rate_limit`ini oshiring; tizim "
    "nomi ko‘rsatilmagan bo‘lsa, auditdan noto‘g‘ri kalit va manzillarni qidiring.",
    "overloaded": "Platforma tez javob bersa, chegarani oshiring yoki jarayon qo‘shing.",
    "token-refused": "`dhp-gateway token` buyrug‘ini bajaring; `client_id` va sirni berilganlari "
    "bilan solishtiring.",
    "sso-unavailable": "`dhp-gateway doctor` buyrug‘ini bajaring. Faqat kirish xizmati ishlamasa, "
    "platforma yordam xizmatiga xabar bering.",
    "token-rejected": "`sso` va `platform` bir muhitdan ekanini va soat to‘g‘riligini tekshiring; "
    "so‘ng platforma yordam xizmatidan so‘rang.",
    "upstream-unreachable": "`dhp-gateway doctor` buyrug‘ini bajaring; aloqa, tarmoq ekrani va "
    "proksini tekshiring.",
    "upstream-failed": "Tez-tez bo‘lsa, yo‘ldagi tarmoq ekranlari vaqt chegaralarini tekshiring va "
    "platforma yordam xizmatiga xabar bering.",
    "upstream-busy": "Platforma tez javob bersa, `platform.max_connections`ni oshiring.",
    "upstream-tls": "`dhp-gateway doctor` buyrug‘ini bajaring; trafikni tekshiruvchi proksi ortida "
    "`platform.ca_file`ni ko‘rsating. Tekshiruvni hech qachon o‘chirmang.",
    "upstream-timeout": "Hammasi sekinmi yoki faqat ayrim qidiruvlarmi, aniqlang; davom etsa, "
    "platforma yordam xizmatiga xabar bering.",
    "upstream-redirect": "`platform.fhir_base_url`ga hujjatdagi manzilni yozing; yo‘lda portal "
    "yoki proksi bor-yo‘qligini tekshiring.",
    "upstream-non-fhir": "502–504 odatda o‘zi o‘tib ketadi. Aks holda `platform.fhir_base_url`ni "
    "`dhp-gateway doctor` bilan tekshiring; yo‘lda proksi yoki portal bor-yo‘qligini ko‘ring.",
    "circuit-open": "Bu yerdagi boshqa xatolarga qarang: sabab o‘shalarda. Shlyuz o‘zi "
    "yana urinadi.",
    "audit-unavailable": "Diskni bo‘shating yoki audit serverini tuzating.",
    "search-parameter-ignored": "`diagnostics` matnini tizim ishlab chiquvchisiga yuboring.",
    "condition-unsupported": "`diagnostics` matnini tizim ishlab chiquvchisiga yuboring.",
    "outbox-full": "Platforma bilan aloqani tiklang; joy bo‘lsa, navbat chegaralarini oshiring.",
    "shutting-down": "Hech narsa.",
    "internal": "Logdan `Traceback`ni toping va uni versiya bilan birga xabar qiling.",
    "platform-error": "Bu yerda hech narsa. Davom etsa, platforma yordam xizmatiga xabar bering.",
    "platform-refusal": "404 va 422 odatda tizimning xatosini bildiradi: qaysi xato ekani javobda "
    "aytilgan. 401 va 403 bo‘lsa, `dhp-gateway doctor` buyrug‘ini bajaring, so‘ng platforma yordam "
    "xizmatidan so‘rang.",
}

REMEDIES: Final[dict[str, dict[str, str]]] = {"en": _EN, "ru": _RU, "uz": _UZ}
