"""Sentences of the outbox about its entries and itself."""

from typing import Final

TABLE: Final = {
    "it was sent; whether the platform has it is not known": (
        "запись отправлена; неизвестно, есть ли она на платформе",
        "yozuv jo‘natilgan; platformada bor-yo‘qligi noma’lum",
    ),
    "what was kept of it cannot be read": (
        "то, что от неё сохранено, не удаётся прочитать",
        "undan saqlab qolingan narsani o‘qib bo‘lmaydi",
    ),
    "the gateway ended while it sent this; outcome unknown": (
        "шлюз завершил работу во время отправки; итог неизвестен",
        "shlyuz jo‘natish paytida to‘xtagan; natija noma’lum",
    ),
    "given up after outbox.max_age; never delivered": (
        "попытки прекращены по истечении outbox.max_age; не доставлена",
        "outbox.max_age tugagach urinish to‘xtatilgan; yetkazilmagan",
    ),
    "given up after outbox.max_age; outcome unknown": (
        "попытки прекращены по истечении outbox.max_age; итог неизвестен",
        "outbox.max_age tugagach urinish to‘xtatilgan; natija noma’lum",
    ),
    "the platform's status was {status}": (
        "код ответа платформы: {status}",
        "platforma javobining kodi: {status}",
    ),
    "a note of another version of the gateway": (
        "примечание другой версии шлюза",
        "shlyuzning boshqa versiyasi qoldirgan izoh",
    ),
    "holds a content that was changed from outside": (
        "содержит данные, изменённые извне",
        "tashqaridan o‘zgartirilgan ma’lumot bor",
    ),
    "the outbox is full": ("очередь отправки заполнена", "jo‘natish navbati to‘lgan"),
    "the caller's share of the outbox is full": (
        "доля этой системы в очереди отправки исчерпана",
        "shu tizimning jo‘natish navbatidagi ulushi tugagan",
    ),
    "the disk is full": ("диск заполнен", "disk to‘lgan"),
    "repeat": ("повторить", "takrorlash"),
    "ask": ("спросить платформу", "platformadan so‘rash"),
    "park": ("ждать решения человека", "inson qarorini kutish"),
}
