"""Texts of the status page about the platform, in three languages; `care:` says what to do.

The other keys are the reasons of `gateway.admin.judgement`, as the platform's card shows them.
`{credential}` is replaced by the name of a credential.
"""

from __future__ import annotations

from typing import Final

_EN: Final = {
    "care:untried": "The gateway is ready, but nothing has been asked of the platform yet: the "
    "first request, or the gateway's own question, will show whether it answers.",
    "care:platform-refuses": "The platform refuses this client (credential `{credential}`). Run "
    "`dhp-gateway doctor`; ask the platform's support whether this client may use it, and check "
    "that `sso` and `platform` are of one environment.",
    "care:platform-not-fhir": "What answers at the platform's address is no FHIR server. Check the "
    "setting `platform.fhir_base_url` with `dhp-gateway doctor`; a portal or proxy on the "
    "line can be the cause, too.",
    "care:platform-fails": "The platform answers with errors. Tell its support; "
    "`dhp-gateway doctor` shows whether it is the line.",
    "care:platform-timeout": "The platform does not answer in time. Check the line with "
    "`dhp-gateway doctor`; if that is well, tell the platform's support.",
    "care:platform-unreachable": "The platform cannot be reached. Check line, firewall and proxy "
    "with `dhp-gateway doctor`; the gateway goes on trying by itself.",
    "care:platform-tls": "There is no secure connection to the platform. Run `dhp-gateway doctor`: "
    "it names the certificate that is not accepted.",
    "care:many-refusals": "The platform refuses nearly all of the last requests, although it "
    "answers. See the errors below; `dhp-gateway doctor` asks it as this client.",
    "untried": "not tried yet",
    "circuit-open": "left alone",
    "circuit-half-open": "being tried",
    "many-errors": "many errors",
    "many-refusals": "refuses nearly all",
    "platform-refuses": "refuses this client",
    "platform-not-fhir": "no FHIR server",
    "platform-fails": "answers with errors",
    "platform-timeout": "does not answer in time",
    "platform-unreachable": "cannot be reached",
    "platform-tls": "no secure connection",
    "answers": "answers",
    "since": "Since {at}",
    "asked_itself": "The gateway itself asked",
    "refusals": "Refused",
    "missing_alias": "Its links lead to `{alias}`, past the gateway, where callers are refused: "
    "add that to `rewrite.aliases`.",
}
_RU: Final = {
    "care:untried": "Шлюз готов, но к платформе ещё никто не обращался: отвечает ли она, покажет "
    "первый запрос или проверка самого шлюза.",
    "care:platform-refuses": "Платформа не принимает нашего клиента (учётные данные "
    "`{credential}`). Выполните `dhp-gateway doctor`; узнайте у службы поддержки платформы, "
    "разрешён ли ему доступ, и проверьте, что `sso` и `platform` из одной среды.",
    "care:platform-not-fhir": "По адресу платформы отвечает не сервер FHIR. Проверьте настройку "
    "`platform.fhir_base_url` командой `dhp-gateway doctor`; причиной может быть и портал или "
    "прокси на линии.",
    "care:platform-fails": "Платформа отвечает ошибками. Сообщите её службе поддержки; "
    "`dhp-gateway doctor` покажет, не в линии ли дело.",
    "care:platform-timeout": "Платформа не отвечает вовремя. Проверьте линию командой "
    "`dhp-gateway doctor`; если с ней всё в порядке, сообщите службе поддержки платформы.",
    "care:platform-unreachable": "Платформа недоступна. Проверьте линию, межсетевой экран и "
    "прокси командой `dhp-gateway doctor`; шлюз продолжает попытки сам.",
    "care:platform-tls": "Нет защищённого соединения с платформой. Команда "
    "`dhp-gateway doctor` назовёт сертификат, который не принимается.",
    "care:many-refusals": "Платформа отвечает, но отклоняет почти все последние запросы. Смотрите "
    "ошибки ниже; `dhp-gateway doctor` обратится к ней от имени нашего клиента.",
    "untried": "ещё не проверялась",
    "circuit-open": "сбой, пауза",
    "circuit-half-open": "проверяется",
    "many-errors": "много ошибок",
    "many-refusals": "отклоняет почти всё",
    "platform-refuses": "не принимает нашего клиента",
    "platform-not-fhir": "не сервер FHIR",
    "platform-fails": "отвечает ошибками",
    "platform-timeout": "не отвечает вовремя",
    "platform-unreachable": "недоступна",
    "platform-tls": "нет защищённого соединения",
    "answers": "отвечает",
    "since": "С {at}",
    "asked_itself": "Шлюз проверил сам",
    "refusals": "Отклонено",
    "missing_alias": "Её ссылки ведут на `{alias}`, мимо шлюза, где системам отказывают: добавьте "
    "этот адрес в `rewrite.aliases`.",
}
_UZ: Final = {
    "care:untried": "Shlyuz tayyor, lekin platformaga hali hech kim murojaat qilmadi: uning javob "
    "berishini birinchi so‘rov yoki shlyuzning o‘z tekshiruvi ko‘rsatadi.",
    "care:platform-refuses": "Platforma mijozimizni qabul qilmayapti (kirish ma’lumotlari: "
    "`{credential}`). `dhp-gateway doctor` buyrug‘ini bajaring; platforma yordam xizmatidan "
    "unga ruxsat bor-yo‘qligini so‘rang, `sso` va `platform` bir muhitdan ekanini tekshiring.",
    "care:platform-not-fhir": "Platforma manzilida javob berayotgan narsa FHIR serveri emas. "
    "`platform.fhir_base_url` sozlamasini `dhp-gateway doctor` bilan tekshiring; yo‘ldagi portal "
    "yoki proksi ham sabab bo‘lishi mumkin.",
    "care:platform-fails": "Platforma xato bilan javob bermoqda. Uning yordam xizmatiga xabar "
    "bering; muammo aloqadami yoki yo‘qmi, buni `dhp-gateway doctor` ko‘rsatadi.",
    "care:platform-timeout": "Platforma o‘z vaqtida javob bermayapti. Aloqani "
    "`dhp-gateway doctor` bilan tekshiring; aloqa joyida bo‘lsa, platforma yordam xizmatiga xabar "
    "bering.",
    "care:platform-unreachable": "Platformaga ulanib bo‘lmayapti. Aloqa, tarmoq ekrani va proksini "
    "`dhp-gateway doctor` bilan tekshiring; shlyuz o‘zi urinishda davom etadi.",
    "care:platform-tls": "Platforma bilan himoyalangan ulanish yo‘q. `dhp-gateway doctor` "
    "buyrug‘ini bajaring: u qaysi sertifikat qabul qilinmayotganini ko‘rsatadi.",
    "care:many-refusals": "Platforma javob bermoqda, lekin oxirgi so‘rovlarning deyarli "
    "hammasini rad etmoqda. Quyidagi xatolarga qarang; `dhp-gateway doctor` unga mijozimiz "
    "nomidan murojaat qiladi.",
    "untried": "hali tekshirilmagan",
    "circuit-open": "uzilish, tanaffus",
    "circuit-half-open": "tekshirilmoqda",
    "many-errors": "xatolar ko‘p",
    "many-refusals": "deyarli hammasini rad etmoqda",
    "platform-refuses": "mijozimizni qabul qilmayapti",
    "platform-not-fhir": "FHIR serveri emas",
    "platform-fails": "xato bilan javob bermoqda",
    "platform-timeout": "o‘z vaqtida javob bermayapti",
    "platform-unreachable": "ulanib bo‘lmayapti",
    "platform-tls": "himoyalangan ulanish yo‘q",
    "answers": "javob bermoqda",
    "since": "{at} dan beri",
    "asked_itself": "Shlyuzning o‘zi tekshirdi",
    "refusals": "Rad etilgan",
    "missing_alias": "Uning havolalari shlyuzni chetlab `{alias}` ga olib boradi, u yerda tizimlar "
    "rad etiladi: shu manzilni `rewrite.aliases` ga qo‘shing.",
}

PLATFORM_WORDS: Final[dict[str, dict[str, str]]] = {"en": _EN, "ru": _RU, "uz": _UZ}
