"""Sentences of the commands themselves."""

from typing import Final

TABLE: Final = {
    "The settings are fine: {listen} leads to {platform}.": (
        "Настройки в порядке: {listen} ведёт к {platform}.",
        "Sozlamalar joyida: {listen} {platform} manziliga olib boradi.",
    ),
    "/readyz answered {status}": ("/readyz ответил {status}", "/readyz javobi: {status}"),
    "not ready: {failing}": ("не готов: {failing}", "tayyor emas: {failing}"),
    "ready": ("готов", "tayyor"),
    "workers are started by `dhp-gateway run`": (
        "рабочие процессы запускает `dhp-gateway run`",
        "ishchi jarayonlarni `dhp-gateway run` ishga tushiradi",
    ),
    "warning: {warning}": ("внимание: {warning}", "diqqat: {warning}"),
    "{failed} of {all} checks failed.": (
        "Проверок не пройдено: {failed} из {all}.",
        "{all} tekshiruvdan {failed} tasi o‘tmadi.",
    ),
    "All is well.": ("Всё в порядке.", "Hammasi joyida."),
    "could not start: {why}": ("не удалось запустить: {why}", "ishga tushirib bo‘lmadi: {why}"),
    "no answer": ("нет ответа", "javob yo‘q"),
    "not ready: {address} cannot be reached: {why}": (
        "не готов: {address} недоступен: {why}",
        "tayyor emas: {address} bilan bog‘lanib bo‘lmaydi: {why}",
    ),
    "not ready: what answers on {address} is no gateway": (
        "не готов: на {address} отвечает не шлюз",
        "tayyor emas: {address} da shlyuz emas, boshqa dastur javob beryapti",
    ),
    "cannot be read": ("не удаётся прочитать", "o‘qib bo‘lmaydi"),
    "check the path and who may read it": (
        "проверьте путь и то, кому разрешено чтение",
        "yo‘lni va kimga o‘qish ruxsat etilganini tekshiring",
    ),
    "put a new one there": ("положите туда новый", "o‘rniga yangisini qo‘ying"),
    "remove it; if the secret was issued so, go on: it is used as it stands": (
        "уберите это; если секрет выдан именно таким, ничего не меняйте: он используется как есть",
        (
            "uni olib tashlang; agar sir aynan shunday berilgan bo‘lsa, hech narsani "
            "o‘zgartirmang: u o‘z holicha ishlatiladi"
        ),
    ),
    "is the same as {other}": ("совпадает с {other}", "{other} bilan bir xil"),
    "the certificate expired on {day}": (
        "срок действия сертификата истёк {day}",
        "sertifikat muddati {day} kuni tugagan",
    ),
    "settings: {source}": ("настройки: {source}", "sozlamalar: {source}"),
    "noted for the audit: the gateway records it, running or at its next start": (
        "отмечено для аудита: шлюз запишет это сейчас или при следующем запуске",
        "audit uchun qayd etildi: shlyuz uni hozir yoki keyingi ishga tushishda yozadi",
    ),
    "the audit cannot be written": ("аудит не записывается", "auditni yozib bo‘lmaydi"),
    "{path}: is not there; the gateway makes it": (
        "{path}: нет такого файла; его создаёт шлюз",
        "{path}: bunday fayl yo‘q; uni shlyuz yaratadi",
    ),
    "empty": ("пусто", "bo‘sh"),
    "cannot be written": ("нельзя записать", "yozib bo‘lmaydi"),
    "id": ("номер", "raqam"),
    "state": ("состояние", "holat"),
    "since": ("с какого времени", "qachondan"),
    "attempts": ("попыток", "urinish"),
    "bytes": ("байт", "bayt"),
    "caller": ("система", "tizim"),
    "cause": ("причина", "sabab"),
    "not possible, it is {state}": (
        "нельзя, состояние: {state}",
        "mumkin emas, holati: {state}",
    ),
    "{count} entries exported": (
        "Выгружено записей: {count}",
        "Eksport qilingan yozuvlar: {count}",
    ),
    "outbox.enabled: is false; there is no outbox to look after": (
        "outbox.enabled: выключено; очереди отправки нет",
        "outbox.enabled: o‘chirilgan; jo‘natish navbati yo‘q",
    ),
    "{entry}: there is no such entry": ("{entry}: такой записи нет", "{entry}: bunday yozuv yo‘q"),
    "--state: one of {state}": ("--state: одно из {state}", "--state: {state} dan biri"),
    "name the entries by their ids": (
        "укажите номера записей",
        "yozuvlarning raqamlarini ko‘rsating",
    ),
    "there is no credential {credential!r}; known: {known}": (
        "нет учётных данных {credential!r}; известны: {known}",
        "{credential!r} nomli kirish ma’lumotlari yo‘q; ma’lumlari: {known}",
    ),
    "no token: {why}": ("нет токена: {why}", "token yo‘q: {why}"),
    "interrupted; nothing is kept": (
        "прервано; ничего не сохранено",
        "to‘xtatildi; hech narsa saqlanmadi",
    ),
    "it is of the kind {value_kind}": (
        "это значение вида {value_kind}",
        "bu {value_kind} turidagi qiymat",
    ),
    "there is none of that type": ("таких ресурсов нет", "bunday resurs yo‘q"),
    "the platform refuses the search": (
        "платформа отклоняет этот поиск",
        "platforma bu qidiruvni rad etdi",
    ),
    "the platform did not answer": ("платформа не ответила", "platforma javob bermadi"),
    "{asked} search parameters asked about, {count} filter nothing": (
        "Проверено параметров поиска: {asked}, не фильтруют: {count}",
        "Tekshirilgan qidiruv parametrlari: {asked}, filtrlamaydigani: {count}",
    ),
    "nothing can be told of {names}: {why}": (
        "ничего нельзя сказать о {names}: {why}",
        "{names} haqida hech narsa aytib bo‘lmaydi: {why}",
    ),
    "fhir.unfiltered replaces what the environment fills in: keep the others there": (
        "fhir.unfiltered заменяет то, что задаёт среда: остальное оставьте в списке",
        (
            "fhir.unfiltered muhit to‘ldirgan qiymat o‘rnini oladi: qolganlarini ham ro‘yxatda "
            "qoldiring"
        ),
    ),
    "{kind!r} is no resource type; write TYPE or TYPE?parameter": (
        "{kind!r} — не тип ресурса; пишите TYPE или TYPE?parameter",
        "{kind!r} resurs turi emas; TYPE yoki TYPE?parameter deb yozing",
    ),
    "after {kind}? comes the name of a parameter, without a value": (
        "после {kind}? идёт имя параметра без значения",
        "{kind}? dan keyin parametr nomi qiymatsiz yoziladi",
    ),
    "asking": ("опрос", "so‘rov"),
    "{told} at {fhir_base_url}": ("{told}: {fhir_base_url}", "{told}: {fhir_base_url}"),
    "--login: browsers need --listen HOST:PORT": (
        "--login: браузерам нужен --listen HOST:PORT",
        "--login: brauzerlarga --listen HOST:PORT kerak",
    ),
    "cannot listen on {address}: {why}; choose another with {key}": (
        "не удаётся слушать {address}: {why}; задайте другой адрес через {key}",
        "{address} manzilini tinglab bo‘lmaydi: {why}; {key} bilan boshqa manzil bering",
    ),
    "as the SSO says": ("так говорит сервис входа", "kirish xizmati shunday deydi"),
    "from the token's exp": ("из поля exp самого токена", "tokenning exp maydonidan"),
    "assumed: sso.default_token_lifetime": (
        "по умолчанию: sso.default_token_lifetime",
        "odatdagi qiymat: sso.default_token_lifetime",
    ),
    "type: Bearer": ("тип: Bearer", "tur: Bearer"),
    "lifetime: {time} ({source})": (
        "срок действия: {time} ({source})",
        "amal qilish muddati: {time} ({source})",
    ),
    "expiry: {time}": ("истекает: {time}", "tugaydi: {time}"),
    "scope: {scope}": ("область доступа: {scope}", "ruxsat doirasi: {scope}"),
    "assertion header: {header}": ("заголовок подписи: {header}", "imzo sarlavhasi: {header}"),
    "assertion claims: {claims}": ("содержание подписи: {claims}", "imzo mazmuni: {claims}"),
    "public key: {key}": ("открытый ключ: {key}", "ochiq kalit: {key}"),
    "token: {token}": ("токен: {token}", "token: {token}"),
    " ({key} {odd}: is that meant?)": (
        " ({key} {odd}: так и задумано?)",
        " ({key} {odd}: shunday bo‘lishi kerakmi?)",
    ),
    " ({key} has several: the first was tried)": (
        " (в {key} их несколько: испробован первый)",
        " ({key} da bir nechta: birinchisi sinaldi)",
    ),
    "none named": ("не названа", "ko‘rsatilmagan"),
    "{days} days {hours} h": ("{days} сут {hours} ч", "{days} kun {hours} soat"),
    "{seconds} s": ("{seconds} с", "{seconds} soniya"),
    "{minutes} min {seconds} s": ("{minutes} мин {seconds} с", "{minutes} daqiqa {seconds} soniya"),
    "{hours} h {minutes} min": ("{hours} ч {minutes} мин", "{hours} soat {minutes} daqiqa"),
    "{days} days": ("{days} сут", "{days} kun"),
    "{minutes} min": ("{minutes} мин", "{minutes} daqiqa"),
    "{hours} h": ("{hours} ч", "{hours} soat"),
    "needs the extra `notify`: pip install 'dhp-gateway[notify]'": (
        "нужно дополнение `notify`: pip install 'dhp-gateway[notify]'",
        "`notify` qo‘shimchasi kerak: pip install 'dhp-gateway[notify]'",
    ),
    "is no address that Apprise understands": (
        "такого адреса Apprise не понимает",
        "Apprise bunday manzilni tushunmaydi",
    ),
    (
        "write it like mailtos://user:password@mail.clinic.uz?to=duty@clinic.uz; "
        "characters such as @ or / in a password are percent-encoded"
    ): (
        (
            "пишите как mailtos://user:password@mail.clinic.uz?to=duty@clinic.uz; знаки "
            "вроде @ или / в пароле пишутся через %"
        ),
        (
            "mailtos://user:password@mail.clinic.uz?to=duty@clinic.uz kabi yozing; paroldagi "
            "@ yoki / kabi belgilar % bilan yoziladi"
        ),
    ),
    "say what to do: notify --test sends a test message": (
        "укажите, что сделать: `notify --test` отправит пробное сообщение",
        "nima qilishni ayting: `notify --test` sinov xabarini yuboradi",
    ),
    "is empty; nobody is to be told": (
        "пусто; сообщать некому",
        "bo‘sh; xabar beriladigan odam ko‘rsatilmagan",
    ),
    "`dhp-gateway notify --test` sends a message there": (
        "`dhp-gateway notify --test` отправит туда сообщение",
        "`dhp-gateway notify --test` u yerga xabar yuboradi",
    ),
    "Check the address and its password; `dhp-gateway doctor` looks at the way there": (
        "Проверьте адрес и пароль; соединение с ним проверит `dhp-gateway doctor`",
        "Manzil va parolini tekshiring; unga ulanishni `dhp-gateway doctor` tekshiradi",
    ),
    "the test message was not taken": (
        "пробное сообщение не принято",
        "sinov xabari qabul qilinmadi",
    ),
    "Apprise understands it, and knows its server": (
        "Apprise понимает его и знает его сервер",
        "Apprise uni tushunadi va serverini biladi",
    ),
    "the test message was taken": ("пробное сообщение принято", "sinov xabari qabul qilindi"),
    "alerts.notify {missing}": ("alerts.notify: {missing}", "alerts.notify: {missing}"),
    "alerts": ("оповещения", "xabarnomalar"),
    "Apprise is not installed": ("Apprise не установлен", "Apprise o‘rnatilmagan"),
    "{key}_file line {number}": ("{key}_file, строка {number}", "{key}_file, {number}-qator"),
}
