"""Sentences of the doctor's network checks."""

from typing import Final

TABLE: Final = {
    "{name} DNS": ("{name}: DNS", "{name}: DNS"),
    "Check host and port in {key}; ask the network's administrator to open {target}": (
        "Проверьте узел и порт в {key}; попросите администратора сети открыть {target}",
        (
            "{key} dagi xost va portni tekshiring; tarmoq administratoridan {target} ni "
            "ochishni so‘rang"
        ),
    ),
    "{name} TLS": ("{name}: TLS", "{name}: TLS"),
    (
        "If a CA of your own or an inspecting proxy is between, put its certificate "
        "into a PEM file and set {section}.ca_file; else the connection may be "
        "intercepted"
    ): (
        (
            "Если у вас свой центр сертификации или трафик проверяет прокси, положите его "
            "сертификат в файл PEM и укажите этот файл в {section}.ca_file; иначе соединение, "
            "возможно, перехватывают"
        ),
        (
            "Agar o‘z sertifikat markazingiz yoki trafikni tekshiruvchi proksi bo‘lsa, uning "
            "sertifikatini PEM fayliga qo‘ying va faylni {section}.ca_file da ko‘rsating; aks "
            "holda ulanish tutib olinayotgan bo‘lishi mumkin"
        ),
    ),
    "trusted, valid for {days} more days": (
        "доверенный, действует ещё дней: {days}",
        "ishonchli, yana {days} kun amal qiladi",
    ),
    "left out: an outgoing proxy is set, which finds the way itself": (
        "пропущено: задан исходящий прокси, он сам находит узел",
        "o‘tkazib yuborildi: chiquvchi proksi berilgan, xostni u topadi",
    ),
    "{host} is {addresses}": ("{host} — это {addresses}", "{host} — bu {addresses}"),
    "{name} TCP": ("{name}: TCP", "{name}: TCP"),
    "{host} port {port}": ("{host}, порт {port}", "{host}, port {port}"),
    "{target} accepts connections": (
        "{target} принимает соединения",
        "{target} ulanishlarni qabul qiladi",
    ),
    "Check this machine's clock first; else the other side's certificate is out of date": (
        (
            "Сначала проверьте часы этого компьютера; если они верны, у сертификата другой "
            "стороны истёк срок"
        ),
        (
            "Avval bu kompyuter soatini tekshiring; u to‘g‘ri bo‘lsa, narigi tomon "
            "sertifikatining muddati o‘tgan"
        ),
    ),
    "the certificate comes from a CA that is not trusted here": (
        "сертификат выдан центром сертификации, которому здесь не доверяют",
        "sertifikatni bu yerda ishonilmaydigan sertifikat markazi bergan",
    ),
    "{host} is an address": ("{host} — это адрес", "{host} — bu manzil"),
    (
        "Check the spelling in {key} and this machine's name servers "
        "(/etc/resolv.conf); without internet ask the network's administrator"
    ): (
        (
            "Проверьте написание в {key} и серверы имён этого компьютера (/etc/resolv.conf); "
            "без интернета обратитесь к администратору сети"
        ),
        (
            "{key} dagi yozuvni va bu kompyuterning nom serverlarini (/etc/resolv.conf) "
            "tekshiring; internet bo‘lmasa, tarmoq administratoriga murojaat qiling"
        ),
    ),
    "no answer from {target} within {timeout:g} s, as behind a firewall": (
        "{target} не отвечает {timeout:g} с: похоже на межсетевой экран",
        "{target} {timeout:g} soniyada javob bermadi: tarmoq ekraniga o‘xshaydi",
    ),
    "Check that {key} names a port that speaks TLS": (
        "Проверьте, что порт в {key} принимает TLS",
        "{key} dagi port TLS bilan ishlashini tekshiring",
    ),
    "the certificate is not valid at this time": (
        "сертификат сейчас не действует",
        "sertifikat hozir amal qilmaydi",
    ),
    "the certificate belongs to another name than {host}": (
        "сертификат выдан не на имя {host}",
        "sertifikat {host} nomiga berilmagan",
    ),
    "Correct the host in {key}; never work around this": (
        "Исправьте узел в {key}; проверку никогда не отключайте",
        "{key} dagi xostni tuzating; tekshiruvni hech qachon o‘chirmang",
    ),
    "Tell its operator that it ends soon": (
        "Сообщите его администратору, что срок сертификата скоро истечёт",
        "Sertifikat muddati yaqinda tugashini uning administratoriga ayting",
    ),
    "needs DNS": ("нужен DNS", "DNS kerak"),
    "the URL begins with http://": ("URL начинается с http://", "URL http:// bilan boshlanadi"),
    "the host name {host} of {key} cannot be resolved": (
        "имя узла {host} из {key} не находится",
        "{key} dagi {host} xost nomi topilmadi",
    ),
    "{target} refuses connections": (
        "{target} отклоняет соединения",
        "{target} ulanishlarni rad etadi",
    ),
    "the other side does not speak TLS properly": (
        "другая сторона неправильно работает по TLS",
        "narigi tomon TLS bilan to‘g‘ri ishlamaydi",
    ),
    "needs TCP": ("нужен TCP", "TCP kerak"),
}
