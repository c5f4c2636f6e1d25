"""Sentences of the sandbox: help and errors of its options, and its URLs."""

from typing import Final

TABLE: Final = {
    "Run no gateway in front of the platform.": (
        "Только платформа, без шлюза.",
        "Faqat platforma, shlyuzsiz.",
    ),
    "People sign in with a browser; there is a page to try.": (
        "Люди входят через браузер; есть страница для пробы.",
        "Odamlar brauzer orqali kiradi; sinash uchun sahifa bor.",
    ),
    "The platform's port; 0: any.": (
        "Порт платформы; 0 — любой.",
        "Platforma porti; 0 — istalgani.",
    ),
    "The gateway's address.": ("Адрес шлюза.", "Shlyuz manzili."),
    "The operators' address.": ("Адрес для администраторов.", "Administratorlar uchun manzil."),
    "`sso|platform=STATUS|html|reset`; `STATUS`: 400 to 599.": (
        (
            "Сбой сервиса входа или платформы: `sso|platform=STATUS|html|reset`; `STATUS` — от "
            "400 до 599."
        ),
        (
            "Kirish xizmati yoki platforma nosozligi: `sso|platform=STATUS|html|reset`; `STATUS` — "
            "400 dan 599 gacha."
        ),
    ),
    "`sso|platform=2s` or `500ms`.": (
        "Задержка ответов: `sso|platform=2s` или `500ms`.",
        "Javoblarni kechiktirish: `sso|platform=2s` yoki `500ms`.",
    ),
    "How long the SSO's tokens last.": (
        "Срок действия токенов.",
        "Tokenlarning amal qilish muddati.",
    ),
    "Share of good tokens refused, 0 to 1.": (
        "Доля верных токенов, которые платформа отклоняет: от 0 до 1.",
        "Platforma rad etadigan to‘g‘ri tokenlar ulushi: 0 dan 1 gacha.",
    ),
    "Conditions are kept, all filters work.": (
        "Платформа без недостатков: соблюдает условия и отбирает по всем параметрам.",
        "Kamchiliksiz platforma: shartlarga amal qiladi, barcha parametrlar bo‘yicha saralaydi.",
    ),
    "How late searches know of a write.": (
        "Через сколько времени поиск видит новую запись.",
        "Qidiruv yangi yozuvni qancha vaqtdan keyin ko‘radi.",
    ),
    # Errors of options.
    "{name}: write sso=… or platform=…": (
        "{name}: пишите `sso=…` или `platform=…`",
        "{name}: `sso=…` yoki `platform=…` deb yozing",
    ),
    "{name}: {side} is named twice": (
        "{name}: {side} указано дважды",
        "{name}: {side} ikki marta ko‘rsatilgan",
    ),
    "{name}: give a status from 400 to 599, html or reset": (
        "{name}: укажите статус от 400 до 599, `html` или `reset`",
        "{name}: 400 dan 599 gacha status, `html` yoki `reset` ko‘rsating",
    ),
    "{name}: give a duration such as 2s or 500ms": (
        "{name}: укажите время, например `2s` или `500ms`",
        "{name}: vaqtni ko‘rsating, masalan `2s` yoki `500ms`",
    ),
    "{name}: give whole seconds, at least 1": (
        "{name}: укажите целое число секунд, не меньше 1",
        "{name}: butun soniyalarni ko‘rsating, kamida 1",
    ),
    "{name}: give a share from 0 to 1, such as 0.1": (
        "{name}: укажите долю от 0 до 1, например 0.1",
        "{name}: 0 dan 1 gacha ulushni ko‘rsating, masalan 0.1",
    ),
    "{name}: give seconds, from 0": (
        "{name}: укажите секунды, от 0",
        "{name}: soniyalarni ko‘rsating, 0 dan boshlab",
    ),
    # Messages of a running sandbox.
    "Platform (FHIR R5)": ("Платформа (FHIR R5)", "Platforma (FHIR R5)"),
    "SSO token endpoint": ("Выдача токенов", "Token beriladigan manzil"),
    "Client": ("Клиент / секрет", "Mijoz / sir"),
    "Gateway": ("Шлюз", "Shlyuz"),
    "Operators": ("Администраторам", "Administratorlar uchun"),
    "Audit": ("Аудит", "Audit"),
    "What the audit has of it:": ("Что об этом есть в аудите:", "Auditda bu haqda:"),
    "A gateway in front of it, from another terminal:": (
        "Шлюз перед ней — из другого терминала:",
        "Uning oldida shlyuz — boshqa terminaldan:",
    ),
    "Try it (the gateway adds the token):": (
        "Попробуйте (токен добавит шлюз):",
        "Sinab ko‘ring (tokenni shlyuz qo‘shadi):",
    ),
    "Open it in a browser and sign in (any name will do):": (
        "Откройте в браузере и войдите (имя любое):",
        "Brauzerda oching va kiring (istalgan nom bilan):",
    ),
    "Ctrl-C ends it.": ("Завершить: Ctrl-C.", "To‘xtatish: Ctrl-C."),
}
