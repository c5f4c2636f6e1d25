# The http package of Tcl: one connection a request, unless -keepalive 1 is said.

# <sample>
package require http
if {[info exists env(http_proxy)]} {
    regexp {//(.*):(\d+)} $env(http_proxy) -> host port
    http::config -proxyhost $host -proxyport $port
}

proc call {method url {body ""} {etag ""}} {
    set fields {Accept application/fhir+json}
    if {$etag ne ""} {lappend fields If-Match $etag}
    set options {}
    if {$body ne ""} {set options [list -type application/fhir+json -query $body]} ;# bytes: encoding convertto utf-8
    set token [http::geturl $url -method $method -headers $fields -binary 1 {*}$options]
    set answer [list [http::ncode $token] [http::meta $token] [http::data $token]]
    http::cleanup $token
    return $answer
}

proc search {name} {
    return [call GET $::env(BASE)/Patient?[http::formatQuery name $name]]
}
# </sample>

proc field {fields wanted} {
    foreach {name value} $fields {
        if {[string equal -nocase $name $wanted]} {return $value}
    }
}
proc content {name} {
    set in [open $name rb]
    set content [read $in]
    close $in
    return $content
}
fconfigure stdin -encoding utf-8
fconfigure stdout -buffering line
while {[gets stdin line] >= 0} {
    lassign [split $line \t] method url file etag
    if {$method eq "SEARCH"} {
        set answer [search $url]
    } else {
        set answer [call $method $url [expr {$file eq "-" ? "" : [content $file]}] [string map {- ""} $etag]]
    }
    lassign $answer status fields text
    set out [open $env(OUT) wb]
    puts -nonewline $out $text
    close $out
    puts "$status\t[field $fields etag]\t[field $fields location]"
}
