// HttpClient of .NET and Mono: one for the whole program keeps connections.
using System;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Net.Http.Headers;

static class HttpClientOrders
{
    // <sample>
    static readonly string Proxy = Environment.GetEnvironmentVariable("http_proxy");
    static readonly HttpClient Client = new HttpClient(
        Proxy == null ? new HttpClientHandler() : new HttpClientHandler { Proxy = new WebProxy(Proxy) });

    static Answer Call(string method, string url, byte[] body, string etag)
    {
        var request = new HttpRequestMessage(new HttpMethod(method), url);
        request.Headers.Accept.ParseAdd("application/fhir+json");
        if (etag != null) request.Headers.TryAddWithoutValidation("If-Match", etag);
        if (body != null)
        {
            request.Content = new ByteArrayContent(body);
            request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/fhir+json");
        }
        using (var answer = Client.SendAsync(request).Result)
        {
            var etags = answer.Headers.TryGetValues("ETag", out var values) ? values.First() : null;
            return new Answer {
                Status = (int)answer.StatusCode, Etag = etags, Location = Convert.ToString(answer.Headers.Location),
                Body = answer.Content.ReadAsByteArrayAsync().Result };
        }
    }

    static Answer Search(string name)
    {
        var query = "/Patient?name=" + Uri.EscapeDataString(name);
        return Call("GET", Environment.GetEnvironmentVariable("BASE") + query, null, null);
    }
    // </sample>

    static void Main() { Orders.Serve(Call, Search); }
}
