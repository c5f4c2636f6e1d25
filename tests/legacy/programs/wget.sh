#!/bin/sh
# wget: one connection a command; the proxy is $http_proxy.

# <sample>
# call METHOD URL [OPTION…]; the answer's fields are then in $OUT.head, its body in $OUT.
call() {
    method=$1 url=$2
    shift 2
    wget --quiet --server-response --content-on-error --tries=1 --method="$method" -O "$OUT" \
        --header='Accept: application/fhir+json' --header='Content-Type: application/fhir+json' "$@" "$url" 2>"$OUT.head"
}
# call PUT "$BASE/Patient/$id" --header='If-Match: W/"1"' --body-file=patient.json
search() {
    name=$(printf %s "$1" | od -An -v -tx1 | tr -d '\n' | tr ' ' %) # UTF-8, percent-encoded
    call GET "$BASE/Patient?name=$name"
}
# </sample>

field() { sed -n "s/^ *$1: *//Ip" "$OUT.head" | tr -d '\r' | tail -1; }
while read -r method url body etag; do
    set --
    [ "$body" = - ] || set -- --body-file="$body"
    [ "$etag" = - ] || set -- "$@" --header="If-Match: $etag"
    case $method in
    SEARCH) search "$url" ;;
    FIVE) wget --server-response -O "$OUT" "$url" "$url" "$url" "$url" "$url" 2>"$OUT.head" ;;
    *) call "$method" "$url" "$@" ;;
    esac
    status=$(sed -n 's|^ *HTTP/1.. \([0-9]*\).*|\1|p' "$OUT.head" | tail -1)
    printf '%s\t%s\t%s\n' "$status" "$(field etag)" "$(field location)"
done
