#!/bin/sh
# curl: one connection a command; the proxy is $http_proxy.

# <sample>
# call METHOD URL [OPTION…] prints the status; the answer's fields are then in $OUT.head, its body in $OUT.
call() {
    method=$1 url=$2
    shift 2
    curl -sS -X "$method" -D "$OUT.head" -o "$OUT" -w '%{http_code}' \
        -H 'Accept: application/fhir+json' -H 'Content-Type: application/fhir+json' "$@" "$url"
}
# call PUT "$BASE/Patient/$id" -H 'If-Match: W/"1"' --data-binary @patient.json
search() {
    call GET "$BASE/Patient" -G --data-urlencode "name=$1"
}
# </sample>

field() { sed -n "s/^$1: *//Ip" "$OUT.head" | tr -d '\r' | tail -1; }
while read -r method url body etag; do
    set --
    [ "$body" = - ] || set -- --data-binary "@$body"
    [ "$etag" = - ] || set -- "$@" -H "If-Match: $etag"
    case $method in
    SEARCH) status=$(search "$url") ;;
    FIVE) status=$(curl -sS -f "$url" "$url" "$url" "$url" "$url" >/dev/null && echo 200) ;;
    *) status=$(call "$method" "$url" "$@") ;;
    esac
    printf '%s\t%s\t%s\n' "$status" "$(field etag)" "$(field location)"
done
