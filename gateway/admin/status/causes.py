"""Why a credential has no token, in the words of the status page: a text for each `Cause`."""

from __future__ import annotations

from typing import Final

from gateway.oauth.token_response import Cause

_EN: Final[dict[Cause, str]] = {
    "refused": "our client is refused",
    "throttled": "too many requests",
    "redirect": "it answers with a redirect",
    "error status": "it answers with an error",
    "empty answer": "its answer is empty",
    "unreadable answer": "its answer cannot be read",
    "not HTTP": "its answer is not HTTP",
    "not a JSON object": "its answer is no JSON object",
    "no usable access_token": "there is no usable token in its answer",
    "token_type is not Bearer": "its token is not of the type Bearer",
    "token expired on arrival": "its token had expired when it came",
    "time-out": "no answer in time",
    "name not found": "its host name cannot be found",
    "no connection": "no connection",
    "connection broken": "the connection broke",
    "proxy": "the proxy gives no connection",
    "certificate": "its certificate is not trusted",
    "certificate name": "its certificate is for another host",
    "certificate time": "its certificate is not valid at this time",
    "no TLS": "it does not speak TLS",
    "TLS": "the TLS connection failed",
    "internal error": "an error in the gateway, see the log",
}
_RU: Final[dict[Cause, str]] = {
    "refused": "наш клиент не принят",
    "throttled": "слишком много запросов",
    "redirect": "вместо ответа перенаправление",
    "error status": "ответ с ошибкой",
    "empty answer": "пустой ответ",
    "unreadable answer": "ответ не удалось прочитать",
    "not HTTP": "ответ не по протоколу HTTP",
    "not a JSON object": "ответ не является объектом JSON",
    "no usable access_token": "в ответе нет пригодного токена",
    "token_type is not Bearer": "тип токена не Bearer",
    "token expired on arrival": "токен пришёл уже истёкшим",
    "time-out": "нет ответа вовремя",
    "name not found": "имя узла не найдено",
    "no connection": "нет соединения",
    "connection broken": "соединение прервалось",
    "proxy": "прокси не даёт соединения",
    "certificate": "нет доверия к сертификату",
    "certificate name": "сертификат выдан другому узлу",
    "certificate time": "сертификат сейчас не действует",
    "no TLS": "на этом порту нет TLS",
    "TLS": "сбой соединения TLS",
    "internal error": "ошибка внутри шлюза, смотрите лог",
}
_UZ: Final[dict[Cause, str]] = {
    "refused": "mijozimiz qabul qilinmadi",
    "throttled": "so‘rovlar juda ko‘p",
    "redirect": "javob o‘rniga boshqa manzilga yo‘naltirildi",
    "error status": "xato bilan javob berdi",
    "empty answer": "javob bo‘sh",
    "unreadable answer": "javobni o‘qib bo‘lmadi",
    "not HTTP": "javob HTTP emas",
    "not a JSON object": "javob JSON obyekti emas",
    "no usable access_token": "javobda yaroqli token yo‘q",
    "token_type is not Bearer": "token turi Bearer emas",
    "token expired on arrival": "token muddati tugagan holda keldi",
    "time-out": "o‘z vaqtida javob bo‘lmadi",
    "name not found": "xost nomi topilmadi",
    "no connection": "ulanib bo‘lmadi",
    "connection broken": "aloqa uzildi",
    "proxy": "proksi ulanish bermadi",
    "certificate": "sertifikat ishonchli emas",
    "certificate name": "sertifikat boshqa xostga berilgan",
    "certificate time": "sertifikat hozir amal qilmaydi",
    "no TLS": "bu portda TLS yo‘q",
    "TLS": "TLS ulanishida nosozlik",
    "internal error": "shlyuz ichida xato, logni ko‘ring",
}

CAUSES: Final = {"en": _EN, "ru": _RU, "uz": _UZ}
