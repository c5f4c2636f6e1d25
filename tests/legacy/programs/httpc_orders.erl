% httpc of Erlang: keeps connections.
-module(httpc_orders).
-export([main/0]).

% <sample>
begin_client(Proxy) ->
    {ok, _} = application:ensure_all_started(inets),
    case Proxy of
        false -> ok;
        Url ->
            #{host := Host, port := Port} = uri_string:parse(Url),
            ok = httpc:set_options([{proxy, {{Host, Port}, []}}])
    end.

call(Method, Url, Body, Etag) ->
    Fields = [{"accept", "application/fhir+json"} | [{"if-match", Etag} || Etag =/= none]],
    Request = case Body of
        none -> {Url, Fields};
        _ -> {Url, Fields, "application/fhir+json", Body}
    end,
    {ok, {{_, Status, _}, Headers, Text}} = httpc:request(Method, Request, [], [{body_format, binary}]),
    {Status, Headers, Text}.

search(Name) ->
    Query = uri_string:compose_query([{"name", Name}]),
    call(get, os:getenv("BASE") ++ "/Patient?" ++ Query, none, none).
% </sample>

main() ->
    io:setopts([{encoding, unicode}]),
    begin_client(os:getenv("http_proxy")),
    loop().

loop() ->
    case io:get_line("") of
        eof -> halt(0);
        Line ->
            [Method, Url, File, Etag] = string:split(string:trim(Line), "\t", all),
            {Status, Headers, Text} = do(Method, Url, File, Etag),
            ok = file:write_file(os:getenv("OUT"), Text),
            io:format("~b\t~s\t~s~n", [Status, field("etag", Headers), field("location", Headers)]),
            loop()
    end.

do("SEARCH", Name, _, _) -> search(Name);
do(Method, Url, "-", Etag) -> call(verb(Method), Url, none, known(Etag));
do(Method, Url, File, Etag) ->
    {ok, Body} = file:read_file(File),
    call(verb(Method), Url, Body, known(Etag)).

verb(Method) -> list_to_atom(string:lowercase(Method)).

known("-") -> none;
known(Etag) -> Etag.

field(Name, Headers) -> proplists:get_value(Name, Headers, "").
