"""The texts of the outbox pages in three languages, which extend those of the status page.

Keys with `said:` report the result of an action, keys with `refused:` why it was not possible.
"""

from __future__ import annotations

from typing import Final

from gateway.admin.outbox.causes import ENTRY_CAUSES
from gateway.admin.status.texts import STATUS_WORDS as COMMON

_EN: Final[dict[str, str]] = {
    "verdict:away": "The outbox cannot be reached",
    "verdict:person": "Entries wait for your decision",
    "verdict:waiting": "Writes wait for the line",
    "verdict:fine": "Nothing waits",
    "advice:person": "They hold up what comes after them for the same patient. Read below why, "
    "and what to do.",
    "card:waiting": "Waiting",
    "card:failed": "Failed",
    "card:unclear": "Unclear",
    "card:sending": "Being sent",
    "since": "since {at}",
    "why": "Why, and what to do",
    "entries": "Entries",
    "all": "All",
    "id": "Entry",
    "queued": "Since",
    "cause": "Cause",
    "attempts": "Attempts",
    "only": "Only these: {what}",
    "show": "Show",
    "back": "Back to the list",
    "first": "First page",
    "next": "Next page",
    "none-here": "No such entries.",
    "to-status": "Status page",
    "signed-in": "Signed in: {name}",
    "sign-in": "Sign in",
    "read-only": "This page can only be read. To allow people to retry and drop, name them in "
    "`admin.operators`, each with a `password_file`; a reload is enough.",
    "sign-in-first": "To retry or drop, sign in with a name of `admin.operators`.",
    "retry": "Send once more",
    "retry:about": "It is tried at once, and keeps its place in its order.",
    "retry-all": "Send all {count} once more",
    "drop": "Drop",
    "drop:about": "Dropping gives the write up for good: it is deleted here and what waited for it "
    "goes on. The audit keeps your name and the reason.",
    "reason": "Reason",
    "reason:hint": "Nothing about a patient",
    "reveal": "Show in full",
    "reveal:about": "Shows the patient's data. The audit keeps your name.",
    "reveal:off": "What is about a patient is hidden: `outbox.reveal` is not set.",
    "what": "Write",
    "bytes": "Bytes",
    "finished": "Ended",
    "due": "Next attempt",
    "answer": "Answer of the platform",
    "note": "Note",
    "address": "Address",
    "fields": "Header fields",
    "body": "Content",
    "request_id": "Request id",
    "cut": "The rest is left out: {bytes} bytes in all. All of it: `dhp-gateway outbox show "
    "--reveal`.",
    "said:retried": "Sent once more: {count}. How it ends, you will see here.",
    "said:dropped": "The entry is dropped.",
    "refused:sign-in": "Name or password is wrong, or missing.",
    "refused:too-many": "Too many wrong passwords from your address. Wait a minute.",
    "refused:foreign": "This did not come from this page, so nothing was done. Open the page and "
    "try again.",
    "refused:old-form": "The page was too old, so nothing was done. Open it again.",
    "refused:form": "Something is missing in the form, so nothing was done.",
    "refused:no-reason": "A reason is missing, so nothing was done.",
    "refused:read-only": "Nobody may decide here: `admin.operators` is empty.",
    "refused:hidden": "Entries are not shown in full: `outbox.reveal` is not set.",
    "refused:unrecorded": "Nothing is shown: the audit has to have it first who sees an entry, and "
    "cannot be written now.",
    "refused:missing": "There is no such entry. It may have been forgotten after its time.",
    "refused:not-possible": "The entry is in another state by now, so nothing was done.",
    "refused:away": "The outbox cannot be reached now, so it is not known what is in it. It is "
    "tried again by itself.",
    "refused:disabled": "There is no outbox: `outbox.enabled` is false. With one, writes are kept "
    "while the line is down, and delivered later.",
}
_RU: Final[dict[str, str]] = {
    "verdict:away": "Очередь отправки недоступна",
    "verdict:person": "Записи ждут вашего решения",
    "verdict:waiting": "Записи ждут связи",
    "verdict:fine": "Ничего не ждёт",
    "advice:person": "Они задерживают следующие записи о том же пациенте. Ниже сказано, почему и "
    "что делать.",
    "card:waiting": "Ждут",
    "card:failed": "Не удались",
    "card:unclear": "Неясно",
    "card:sending": "Отправляются",
    "since": "с {at}",
    "why": "Почему и что делать",
    "entries": "Записи",
    "all": "Все",
    "id": "Запись",
    "queued": "С какого времени",
    "cause": "Причина",
    "attempts": "Попытки",
    "only": "Только эти: {what}",
    "show": "Показать",
    "back": "К списку",
    "first": "Первая страница",
    "next": "Следующая страница",
    "none-here": "Таких записей нет.",
    "to-status": "Страница состояния",
    "signed-in": "Вы вошли: {name}",
    "sign-in": "Войти",
    "read-only": "Эту страницу можно только читать. Чтобы кто-то мог повторять и снимать записи, "
    "назовите людей в `admin.operators`, каждого с `password_file`; достаточно перечитать "
    "настройки.",
    "sign-in-first": "Чтобы повторять или снимать записи, войдите под именем из `admin.operators`.",
    "retry": "Отправить ещё раз",
    "retry:about": "Она будет отправлена сразу и сохранит своё место в порядке.",
    "retry-all": "Отправить ещё раз все: {count}",
    "drop": "Снять",
    "drop:about": "Снятая запись не будет доставлена никогда: здесь она удаляется, и то, что её "
    "ждало, идёт дальше. Аудит хранит ваше имя и основание.",
    "reason": "Основание",
    "reason:hint": "Ничего о пациенте",
    "reveal": "Показать полностью",
    "reveal:about": "Покажет данные пациента. Аудит хранит ваше имя.",
    "reveal:off": "Всё о пациенте скрыто: `outbox.reveal` не включён.",
    "what": "Что записывается",
    "bytes": "Байт",
    "finished": "Закончилась",
    "due": "Следующая попытка",
    "answer": "Ответ платформы",
    "note": "Примечание",
    "address": "Адрес",
    "fields": "Поля заголовка",
    "body": "Содержимое",
    "request_id": "Идентификатор запроса",
    "cut": "Остальное опущено: всего байт {bytes}. Целиком: `dhp-gateway outbox show --reveal`.",
    "said:retried": "Отправлено ещё раз: {count}. Чем это кончится, будет видно здесь.",
    "said:dropped": "Запись снята.",
    "refused:sign-in": "Имя или пароль неверны или не указаны.",
    "refused:too-many": "Слишком много неверных паролей с вашего адреса. Подождите минуту.",
    "refused:foreign": "Запрос пришёл не с этой страницы, ничего не сделано. Откройте страницу и "
    "попробуйте снова.",
    "refused:old-form": "Страница устарела, ничего не сделано. Откройте её заново.",
    "refused:form": "В форме чего-то не хватает, ничего не сделано.",
    "refused:no-reason": "Не указано основание, ничего не сделано.",
    "refused:read-only": "Решать здесь некому: `admin.operators` пуст.",
    "refused:hidden": "Записи не показываются полностью: `outbox.reveal` не включён.",
    "refused:unrecorded": "Ничего не показано: просмотр сначала должен попасть в аудит, а он "
    "сейчас не записывается.",
    "refused:missing": "Такой записи нет. Возможно, её срок хранения истёк.",
    "refused:not-possible": "Состояние записи уже другое, ничего не сделано.",
    "refused:away": "Очередь отправки сейчас недоступна, и что в ней, неизвестно. Шлюз сам "
    "пробует снова.",
    "refused:disabled": "Очереди отправки нет: `outbox.enabled` выключен. С ней записи "
    "сохраняются, пока нет связи, и доставляются позже.",
}
_UZ: Final[dict[str, str]] = {
    "verdict:away": "Jo‘natish navbati ochilmayapti",
    "verdict:person": "Yozuvlar qaroringizni kutmoqda",
    "verdict:waiting": "Yozuvlar aloqani kutmoqda",
    "verdict:fine": "Kutayotgani yo‘q",
    "advice:person": "Ular o‘sha bemorning keyingi yozuvlarini to‘xtatib turibdi. Sababi va nima "
    "qilish kerakligi quyida.",
    "card:waiting": "Kutmoqda",
    "card:failed": "Bajarilmagan",
    "card:unclear": "Noaniq",
    "card:sending": "Jo‘natilmoqda",
    "since": "{at} dan beri",
    "why": "Sababi va nima qilish kerak",
    "entries": "Yozuvlar",
    "all": "Hammasi",
    "id": "Yozuv",
    "queued": "Qachondan",
    "cause": "Sabab",
    "attempts": "Urinishlar",
    "only": "Faqat shular: {what}",
    "show": "Ko‘rsatish",
    "back": "Ro‘yxatga qaytish",
    "first": "Birinchi sahifa",
    "next": "Keyingi sahifa",
    "none-here": "Bunday yozuvlar yo‘q.",
    "to-status": "Holat sahifasi",
    "signed-in": "Siz kirdingiz: {name}",
    "sign-in": "Kirish",
    "read-only": "Bu sahifani faqat o‘qish mumkin. Yozuvlarni qayta jo‘natish va olib tashlashga "
    "ruxsat berish uchun odamlarni `admin.operators`da, har birini o‘z `password_file`i bilan "
    "ko‘rsating; sozlamalarni qayta o‘qitish kifoya.",
    "sign-in-first": "Qayta jo‘natish yoki olib tashlash uchun `admin.operators`dagi nom bilan "
    "kiring.",
    "retry": "Qayta jo‘natish",
    "retry:about": "U darhol jo‘natiladi va tartibdagi joyini saqlaydi.",
    "retry-all": "Hammasini qayta jo‘natish: {count} ta",
    "drop": "Olib tashlash",
    "drop:about": "Olib tashlangan yozuv hech qachon yetkazilmaydi: u bu yerdan o‘chiriladi, uni "
    "kutganlari esa davom etadi. Audit ismingiz va asosni saqlaydi.",
    "reason": "Asos",
    "reason:hint": "Bemor haqida hech narsa yozmang",
    "reveal": "To‘liq ko‘rsatish",
    "reveal:about": "Bemor ma’lumotlarini ko‘rsatadi. Audit ismingizni saqlaydi.",
    "reveal:off": "Bemorga oid hamma narsa yashirilgan: `outbox.reveal` yoqilmagan.",
    "what": "Nima yoziladi",
    "bytes": "Baytlar",
    "finished": "Tugadi",
    "due": "Keyingi urinish",
    "answer": "Platforma javobi",
    "note": "Izoh",
    "address": "Manzil",
    "fields": "Sarlavha maydonlari",
    "body": "Mazmuni",
    "request_id": "So‘rov identifikatori",
    "cut": "Qolgani tushirib qoldirildi: jami {bytes} bayt. To‘liq: `dhp-gateway outbox show "
    "--reveal`.",
    "said:retried": "Qayta jo‘natildi: {count} ta. Natijasi shu yerda ko‘rinadi.",
    "said:dropped": "Yozuv olib tashlandi.",
    "refused:sign-in": "Nom yoki parol noto‘g‘ri yoxud kiritilmagan.",
    "refused:too-many": "Manzilingizdan juda ko‘p noto‘g‘ri parol keldi. Bir daqiqa kuting.",
    "refused:foreign": "So‘rov bu sahifadan kelmadi, shuning uchun hech narsa qilinmadi. Sahifani "
    "ochib, qayta urinib ko‘ring.",
    "refused:old-form": "Sahifa eskirgan, shuning uchun hech narsa qilinmadi. Uni qaytadan oching.",
    "refused:form": "Shaklda nimadir yetishmayapti, shuning uchun hech narsa qilinmadi.",
    "refused:no-reason": "Asos ko‘rsatilmagan, shuning uchun hech narsa qilinmadi.",
    "refused:read-only": "Bu yerda hech kim qaror qila olmaydi: `admin.operators` bo‘sh.",
    "refused:hidden": "Yozuvlar to‘liq ko‘rsatilmaydi: `outbox.reveal` yoqilmagan.",
    "refused:unrecorded": "Hech narsa ko‘rsatilmadi: ko‘rish avval auditga yozilishi kerak, u esa "
    "hozir yozilmayapti.",
    "refused:missing": "Bunday yozuv yo‘q. Saqlash muddati tugagan bo‘lishi mumkin.",
    "refused:not-possible": "Yozuv holati o‘zgargan, shuning uchun hech narsa qilinmadi.",
    "refused:away": "Jo‘natish navbati hozir ochilmayapti, unda nima borligi noma’lum. Shlyuz o‘zi "
    "qayta urinadi.",
    "refused:disabled": "Jo‘natish navbati yo‘q: `outbox.enabled` o‘chirilgan. U bo‘lsa, aloqa "
    "uzilganda yozuvlar saqlanadi va keyin yetkaziladi.",
}

PAGE_WORDS: Final[dict[str, dict[str, str]]] = {"en": _EN, "ru": _RU, "uz": _UZ}
OUTBOX_WORDS: Final[dict[str, dict[str, str]]] = {
    language: {**COMMON[language], **ENTRY_CAUSES[language], **page_texts}
    for language, page_texts in PAGE_WORDS.items()
}
