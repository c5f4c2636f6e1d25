"""Sentences of the doctor's checks, except those of the network."""

from typing import Final

TABLE: Final = {
    "platform metadata": ("метаданные платформы", "platforma metama’lumotlari"),
    "secret {key}": ("секрет {key}", "sir {key}"),
    "Look who may read it: icacls {path}": (
        "Посмотрите, кто может его читать: icacls {path}",
        "Uni kim o‘qiy olishini ko‘ring: icacls {path}",
    ),
    "{path} can be read, by few (mode {mode:04o})": (
        "{path} читается, доступ у немногих (права {mode:04o})",
        "{path} o‘qiladi, ruxsat kam kishida (huquqlar {mode:04o})",
    ),
    "listener {key}": ("порт {key}", "port {key}"),
    "this machine's clock is {time} ahead of the platform's": (
        "часы этого компьютера спешат относительно платформы на {time}",
        "bu kompyuter soati platformanikidan {time} oldinda",
    ),
    "this machine's clock is {time} behind the platform's": (
        "часы этого компьютера отстают от платформы на {time}",
        "bu kompyuter soati platformanikidan {time} orqada",
    ),
    "{command}, as administrator": (
        "{command}, от имени администратора",
        "{command}, administrator nomidan",
    ),
    "clock": ("часы", "soat"),
    "this machine and the platform agree": (
        "время на этом компьютере и на платформе совпадает",
        "bu kompyuter va platforma vaqti bir xil",
    ),
    "The platform refuses the SSO's token: are both of the same environment?": (
        "Платформа не принимает токен сервиса входа: они из одной среды?",
        "Platforma kirish xizmati tokenini qabul qilmadi: ikkalasi bir muhitdanmi?",
    ),
    "Check platform.fhir_base_url: it must end where /metadata begins": (
        "Проверьте platform.fhir_base_url: адрес должен кончаться там, где начинается /metadata",
        "platform.fhir_base_url ni tekshiring: u /metadata boshlanadigan joyda tugashi kerak",
    ),
    "FHIR {version}": ("FHIR {version}", "FHIR {version}"),
    "settings": ("настройки", "sozlamalar"),
    "environment {environment}": ("среда {environment}", "muhit {environment}"),
    "SSO": ("сервис входа", "kirish xizmati"),
    "platform": ("платформа", "platforma"),
    "{path} can be read": ("{path} читается", "{path} o‘qiladi"),
    "Run: chmod 0600 {path}": ("Выполните: chmod 0600 {path}", "Bajaring: chmod 0600 {path}"),
    "no answer: {name}": ("нет ответа: {name}", "javob yo‘q: {name}"),
    "Switch on time synchronisation: {set_clock}": (
        "Включите синхронизацию времени: {set_clock}",
        "Vaqtni sinxronlashni yoqing: {set_clock}",
    ),
    "status {status}": ("статус {status}", "status {status}"),
    "no CapabilityStatement (status {status})": (
        "нет CapabilityStatement (статус {status})",
        "CapabilityStatement yo‘q (status {status})",
    ),
    "This is not an R5 server": ("Это не сервер FHIR R5", "Bu FHIR R5 serveri emas"),
    "What is in it {odd}: is that meant?": (
        "Содержимое {odd}: так и задумано?",
        "Undagi qiymat {odd}: shunday bo‘lishi kerakmi?",
    ),
    "Another program listens there; end it or change {key}. To see who it is: ss -ltnp": (
        (
            "Этот адрес занят другой программой; завершите её или измените {key}. Узнать, "
            "какая это: ss -ltnp"
        ),
        (
            "Bu manzilni boshqa dastur egallagan; uni to‘xtating yoki {key} ni o‘zgartiring. "
            "Qaysi dastur ekanini bilish uchun: ss -ltnp"
        ),
    ),
    "the folder cannot be written": ("в папку нельзя писать", "papkaga yozib bo‘lmaydi"),
    "the platform does not tell its time": (
        "платформа не сообщает своё время",
        "platforma o‘z vaqtini aytmaydi",
    ),
    "the platform wants a token (status {status})": (
        "платформа требует токен (статус {status})",
        "platforma token talab qiladi (status {status})",
    ),
    "given in the settings themselves": (
        "задан в самих настройках",
        "sozlamalarning o‘zida berilgan",
    ),
    "{address} is free": ("{address} свободен", "{address} bo‘sh"),
    "token {name}": ("токен {name}", "token {name}"),
    "needs the way to the SSO": (
        "сначала нужна связь с сервисом входа",
        "avval kirish xizmati bilan aloqa kerak",
    ),
    "needs the way to the platform": (
        "сначала нужна связь с платформой",
        "avval platforma bilan aloqa kerak",
    ),
    "needs an answer of the platform": (
        "сначала нужен ответ платформы",
        "avval platforma javobi kerak",
    ),
    "Check {key}": ("Проверьте {key}", "{key} ni tekshiring"),
    "Check the path": ("Проверьте путь", "Fayl yo‘lini tekshiring"),
    "{address} is not free: {reason}": (
        "{address} не свободен: {reason}",
        "{address} bo‘sh emas: {reason}",
    ),
    "{address} is in use by the gateway that runs": (
        "{address} занят работающим шлюзом",
        "{address} ishlab turgan shlyuz tomonidan band",
    ),
    "{address} is in use by another gateway": (
        "{address} занят другим шлюзом",
        "{address} boshqa shlyuz tomonidan band",
    ),
    "It does not run with these settings yet: {keys}. Restart it": (
        "Он пока работает с другими настройками: {keys}. Перезапустите его",
        "U hozircha boshqa sozlamalar bilan ishlayapti: {keys}. Uni qayta ishga tushiring",
    ),
    "It runs with other settings: {keys}. Restart it if it is to have these, else change {key}": (
        (
            "У него другие настройки: {keys}. Перезапустите его, если он должен работать с "
            "этими, иначе измените {key}"
        ),
        (
            "Uning sozlamalari boshqa: {keys}. U shu sozlamalar bilan ishlashi kerak bo‘lsa, "
            "uni qayta ishga tushiring, aks holda {key} ni o‘zgartiring"
        ),
    ),
    "audit audit.path": ("аудит audit.path", "audit audit.path"),
    "Make it, for the gateway's user: install -d -m 0750 -o USER {folder}": (
        "Создайте её для пользователя шлюза: install -d -m 0750 -o USER {folder}",
        "Uni shlyuz foydalanuvchisi uchun yarating: install -d -m 0750 -o USER {folder}",
    ),
    "Its owner must be the gateway's user: chown USER {folder}": (
        "Владельцем должен быть пользователь шлюза: chown USER {folder}",
        "Egasi shlyuz foydalanuvchisi bo‘lishi kerak: chown USER {folder}",
    ),
    "It must be a file of the gateway's user: chown USER {path}": (
        "Это должен быть файл пользователя шлюза: chown USER {path}",
        "Bu shlyuz foydalanuvchisining fayli bo‘lishi kerak: chown USER {path}",
    ),
    "The gateway's user must: chown USER {owned}": (
        "Писать туда должен пользователь шлюза: chown USER {owned}",
        "Unga shlyuz foydalanuvchisi yozishi kerak: chown USER {owned}",
    ),
    "{folder} can be written": (
        "в папку {folder} можно писать",
        "{folder} papkasiga yozsa bo‘ladi",
    ),
    "run as root; only root may read {hidden}": (
        "doctor запущен от root; читать {hidden} может только root",
        "doctor root nomidan ishga tushirilgan; {hidden} ni faqat root o‘qiy oladi",
    ),
    (
        "A gateway of another user needs them handed over (systemd's LoadCredential) "
        "or the right to read them; run the doctor as that user to be sure"
    ): (
        (
            "Если шлюз работает под другим пользователем, эти файлы нужно передать ему "
            "(LoadCredential в systemd) или дать ему право их читать; для уверенности "
            "запустите doctor от имени этого пользователя"
        ),
        (
            "Agar shlyuz boshqa foydalanuvchi nomidan ishlasa, bu fayllarni unga uzatish "
            "(systemd dagi LoadCredential) yoki o‘qishga ruxsat berish kerak; ishonch hosil "
            "qilish uchun doctor ni o‘sha foydalanuvchi nomidan ishga tushiring"
        ),
    ),
    "{folder} is not there; systemd makes it at the first start (LogsDirectory)": (
        "папки {folder} нет; systemd создаст её при первом запуске (LogsDirectory)",
        "{folder} papkasi yo‘q; systemd uni birinchi ishga tushishda yaratadi (LogsDirectory)",
    ),
    "{folder} is not there": ("папки {folder} нет", "{folder} papkasi yo‘q"),
    "{folder} is no folder": ("{folder} — не папка", "{folder} papka emas"),
    "Give another audit.path": ("Укажите другой audit.path", "Boshqa audit.path ko‘rsating"),
    "{folder} cannot be written": (
        "в папку {folder} нельзя писать",
        "{folder} papkasiga yozib bo‘lmaydi",
    ),
    "{path} cannot be written": ("в файл {path} нельзя писать", "{path} fayliga yozib bo‘lmaydi"),
    "{owned} belongs to root, who can write it": (
        "{owned} принадлежит root, и писать туда может он",
        "{owned} root ga tegishli, unga root yoza oladi",
    ),
    "Without systemd: {make}": (
        "Если systemd нет, сделайте это сами. {make}",
        "systemd bo‘lmasa, buni o‘zingiz qiling. {make}",
    ),
    "files": ("файлы", "fayllar"),
    "login discovery": ("описание для входа", "kirish tavsifi"),
    "login page": ("страница входа", "kirish sahifasi"),
    "login client": ("клиент для входа", "kirish uchun mijoz"),
    "the SSO publishes nothing of itself; sso.authorize_url is used as it is": (
        "сервис входа ничего о себе не публикует; sso.authorize_url используется как есть",
        (
            "kirish xizmati o‘zi haqida hech narsa e’lon qilmaydi; sso.authorize_url o‘z "
            "holicha ishlatiladi"
        ),
    ),
    "SSO page": ("страница сервиса входа", "kirish xizmati sahifasi"),
    "what {stranger} tells of itself is in the name of another issuer": (
        "то, что публикует о себе {stranger}, написано от имени другого сервиса входа (`issuer`)",
        "{stranger} o‘zi haqida e’lon qilgan ma’lumot boshqa kirish xizmati (`issuer`) nomidan",
    ),
    "Set sso.authorize_url to the issuer's own address, as it names itself": (
        (
            "Укажите в sso.authorize_url собственный адрес этого сервиса (`issuer`), каким он "
            "себя называет"
        ),
        "sso.authorize_url ga shu xizmatning (`issuer`) o‘zi aytadigan manzilini yozing",
    ),
    "Ask its operator for PKCE with S256 (RFC 7636); the gateway uses nothing weaker": (
        (
            "Попросите администратора сервиса входа включить PKCE с S256 (RFC 7636); более "
            "слабой защиты шлюз не использует"
        ),
        (
            "Kirish xizmati administratoridan S256 bilan PKCE ni yoqishni so‘rang (RFC 7636); "
            "shlyuz bundan zaif himoyani ishlatmaydi"
        ),
    ),
    "Set sso.token_url to it, or sso.authorize_url to the SSO of that token endpoint": (
        (
            "Укажите в sso.token_url этот адрес либо в sso.authorize_url — сервис входа, "
            "которому принадлежит нынешний sso.token_url"
        ),
        (
            "sso.token_url ga shu manzilni yozing yoki sso.authorize_url ga hozirgi "
            "sso.token_url tegishli bo‘lgan kirish xizmatini yozing"
        ),
    ),
    "{issuer} is an OpenID provider": (
        "{issuer} — провайдер OpenID",
        "{issuer} — OpenID provayderi",
    ),
    "Check login.scope; the SSO's operator can tell what this client may do": (
        "Проверьте login.scope; администратор сервиса входа скажет, что разрешено этому клиенту",
        (
            "login.scope ni tekshiring; bu mijozga nima mumkinligini kirish xizmati "
            "administratori aytadi"
        ),
    ),
    "the SSO knows no such client or no such redirect_uri (status {status})": (
        "сервис входа не знает такого клиента или такого redirect_uri (статус {status})",
        "kirish xizmati bunday mijozni yoki bunday redirect_uri ni bilmaydi (status {status})",
    ),
    "Register with it, letter for letter: {client_id}, {redirect_uri}": (
        "Зарегистрируйте в нём, буква в букву: {client_id}, {redirect_uri}",
        "Unda aynan shunday ro‘yxatdan o‘tkazing: {client_id}, {redirect_uri}",
    ),
    "the SSO lets people sign in for {redirect_uri}": (
        "сервис входа разрешает вход с {redirect_uri}",
        "kirish xizmati {redirect_uri} bilan kirishga ruxsat beradi",
    ),
    "the SSO takes any code": (
        "сервис входа принимает любой код",
        "kirish xizmati har qanday kodni qabul qiladi",
    ),
    "the SSO does not know PKCE with S256": (
        "сервис входа не поддерживает PKCE с S256",
        "kirish xizmati S256 bilan PKCE ni qo‘llamaydi",
    ),
    "none": ("нет", "yo‘q"),
    "{issuer} names the token endpoint {named}": (
        "адрес выдачи токенов у {issuer} не тот, что в sso.token_url: {named}",
        "{issuer} aytadigan token manzili sso.token_url dagidan boshqa: {named}",
    ),
    "the SSO refuses the sign-in: {refusal}": (
        "сервис входа отказывает во входе: {refusal}",
        "kirish xizmati kirishni rad etdi: {refusal}",
    ),
    "Check sso.authorize_url": ("Проверьте sso.authorize_url", "sso.authorize_url ni tekshiring"),
    "Mend the secret or key first": (
        "Сначала исправьте секрет или ключ",
        "Avval sir yoki kalitni tuzating",
    ),
    "Check login.client_id, its secret or key and auth_method with the SSO's operator": (
        (
            "Сверьте login.client_id, его секрет или ключ и auth_method с администратором "
            "сервиса входа"
        ),
        (
            "login.client_id, uning siri yoki kaliti va auth_method ni kirish xizmati "
            "administratori bilan solishtiring"
        ),
    ),
    "the SSO does not say: {cause}": (
        "по ответу сервиса входа судить нельзя: {cause}",
        "kirish xizmati javobidan bilib bo‘lmaydi: {cause}",
    ),
    "Give a PEM file with CA certificates": (
        "Укажите файл PEM с сертификатами центра сертификации",
        "Sertifikat markazi sertifikatlari bor PEM faylini ko‘rsating",
    ),
    "the SSO knows the client, and how it proves itself": (
        "сервис входа знает клиента и принимает его способ подтверждения",
        "kirish xizmati mijozni taniydi va tasdiqlash usulini qabul qiladi",
    ),
    "the SSO refuses the client: {told}": (
        "сервис входа не принимает клиента: {told}",
        "kirish xizmati mijozni qabul qilmadi: {told}",
    ),
    "the SSO gave a token for {lifetime}": (
        "сервис входа выдал токен на {lifetime}",
        "kirish xizmati token berdi, muddati {lifetime}",
    ),
    "Known token endpoints: {told}": (
        "Известные адреса выдачи токенов: {told}",
        "Ma’lum token manzillari: {told}",
    ),
    "{url} names the token endpoint {named}, sso.token_url is {token_url}": (
        "{url} сообщает адрес выдачи токенов: {named}, а в sso.token_url стоит {token_url}",
        "{url} aytadigan token manzili: {named}, sso.token_url da esa {token_url}",
    ),
    (
        "Ask the SSO's operator which is right for this client, and set sso.token_url "
        "to it; the gateway takes no address from there by itself"
    ): (
        (
            "Узнайте у администратора сервиса входа, какой адрес верен для этого клиента, и "
            "укажите его в sso.token_url; сам шлюз оттуда адресов не берёт"
        ),
        (
            "Bu mijoz uchun qaysi biri to‘g‘riligini kirish xizmati administratoridan so‘rang "
            "va sso.token_url ga yozing; shlyuz u yerdan manzilni o‘zi olmaydi"
        ),
    ),
    "try again later, and tell the SSO's operator if it lasts": (
        "попробуйте позже и, если не пройдёт, сообщите администратору сервиса входа",
        "keyinroq urinib ko‘ring, davom etsa, kirish xizmati administratoriga ayting",
    ),
    "the SSO's operator can tell what is registered for this client": (
        "что зарегистрировано для этого клиента, скажет администратор сервиса входа",
        "bu mijoz uchun nima ro‘yxatdan o‘tganini kirish xizmati administratori aytadi",
    ),
    (
        "If the SSO fetches the public keys from /.well-known/jwks.json of this gateway, "
        "start the gateway first"
    ): (
        (
            "Если сервис входа берёт открытые ключи у этого шлюза (/.well-known/jwks.json), "
            "сначала запустите шлюз"
        ),
        (
            "Agar kirish xizmati ochiq kalitlarni shu shlyuzdan (/.well-known/jwks.json) olsa, "
            "avval shlyuzni ishga tushiring"
        ),
    ),
    "Each environment has an SSO of its own, which refuses the clients of the others": (
        "В каждой среде свой сервис входа, и чужих клиентов он не принимает",
        "Har bir muhitning o‘z kirish xizmati bor, u boshqalarning mijozlarini qabul qilmaydi",
    ),
    "that is no URL": ("это не URL", "URL emas"),
    "Here sso.token_url is that of {sso}, but platform.fhir_base_url that of {platform}": (
        "Здесь sso.token_url относится к {sso}, а platform.fhir_base_url — к {platform}",
        "Bu yerda sso.token_url {sso} niki, platform.fhir_base_url esa {platform} niki",
    ),
    "{name} documents": ("публикуемые документы: {name}", "e’lon qilingan hujjatlar: {name}"),
    "none that names a token endpoint": (
        "ни в одном не назван адрес выдачи токенов",
        "birortasida token manzili aytilmagan",
    ),
    "{url} names the token endpoint of the settings": (
        "{url} называет тот же адрес выдачи токенов, что и настройки",
        "{url} sozlamalardagi token manzilini aytadi",
    ),
    "operators": ("администраторы", "administratorlar"),
    "{names} may decide about queued writes": (
        "решения о записях в очереди принимают: {names}",
        "navbatdagi yozuvlar haqida qaror qabul qiladi: {names}",
    ),
    "platform links": ("ссылки платформы", "platforma havolalari"),
    "they begin as the settings say": (
        "начинаются так, как указано в настройках",
        "sozlamalarda aytilganidek boshlanadi",
    ),
    "they begin with {aliases}, and lead past the gateway": (
        "начинаются с {aliases} и ведут мимо шлюза",
        "{aliases} bilan boshlanadi va shlyuzni chetlab o‘tadi",
    ),
    "Set rewrite.aliases: [{aliases}], or platform.fhir_base_url to that name": (
        "Задайте rewrite.aliases: [{aliases}] или впишите это имя в platform.fhir_base_url",
        "rewrite.aliases: [{aliases}] ni belgilang yoki shu nomni platform.fhir_base_url ga yozing",
    ),
    "implementation.url of the platform is {alias}": (
        "implementation.url платформы: {alias}",
        "platformaning implementation.url qiymati: {alias}",
    ),
    "If links begin so, too, set rewrite.aliases: [{alias}]": (
        "Если так начинаются и ссылки, задайте rewrite.aliases: [{alias}]",
        "Havolalar ham shunday boshlansa, rewrite.aliases: [{alias}] ni belgilang",
    ),
}
