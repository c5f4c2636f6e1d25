{ TFPHTTPClient of Free Pascal and Lazarus: one connection a request, unless KeepConnection is set. }
program fphttp;
{$mode objfpc}{$H+}
uses
  Classes, SysUtils, URIParser, fphttpclient, httpdefs;

type
  TAnswer = record
    Status: Integer;
    Etag, Location: string;
  end;

{ <sample> }
function Call(const Method, Url: string; Body: TStream; const Etag: string; Text: TStream): TAnswer;
var
  Client: TFPHTTPClient;
begin
  Client := TFPHTTPClient.Create(nil);
  try
    Client.AddHeader('Accept', 'application/fhir+json');
    if Etag <> '' then Client.AddHeader('If-Match', Etag);
    if Body <> nil then Client.AddHeader('Content-Type', 'application/fhir+json');
    Client.RequestBody := Body;
    if GetEnvironmentVariable('http_proxy') <> '' then
    begin
      Client.Proxy.Host := ParseURI(GetEnvironmentVariable('http_proxy')).Host;
      Client.Proxy.Port := ParseURI(GetEnvironmentVariable('http_proxy')).Port;
    end;
    Client.HTTPMethod(Method, Url, Text, []); { no list of statuses: an error is an answer, too }
    Result.Status := Client.ResponseStatusCode;
    Result.Etag := Client.GetHeader(Client.ResponseHeaders, 'ETag');
    Result.Location := Client.GetHeader(Client.ResponseHeaders, 'Location');
  finally
    Client.Free;
  end;
end;

function Search(const Name: string; Text: TStream): TAnswer; { the name's bytes are UTF-8 }
begin
  Result := Call('GET', GetEnvironmentVariable('BASE') + '/Patient?name=' + EncodeURLElement(Name), nil, '', Text);
end;
{ </sample> }

function Known(const Word: string): string;
begin
  if Word = '-' then Result := '' else Result := Word;
end;

var
  Line: string;
  Order: TStringArray;
  Body: TMemoryStream;
  Text: TMemoryStream;
  Answer: TAnswer;
begin
  while not EOF do
  begin
    ReadLn(Line);
    Order := Line.Split([#9]);
    Body := nil;
    Text := TMemoryStream.Create;
    if Known(Order[2]) <> '' then
    begin
      Body := TMemoryStream.Create;
      Body.LoadFromFile(Order[2]);
    end;
    if Order[0] = 'SEARCH' then
      Answer := Search(Order[1], Text)
    else
      Answer := Call(Order[0], Order[1], Body, Known(Order[3]), Text);
    Text.SaveToFile(GetEnvironmentVariable('OUT'));
    Text.Free;
    Body.Free;
    WriteLn(Answer.Status, #9, Answer.Etag, #9, Answer.Location);
    Flush(Output);
  end;
end.
