// HttpWebRequest of .NET Framework and Mono: keeps connections.
using System;
using System.IO;
using System.Net;

static class WebRequestOrders
{
    // <sample>
    static Answer Call(string method, string url, byte[] body, string etag)
    {
        var request = (HttpWebRequest)WebRequest.Create(url);
        request.Method = method;
        request.Accept = "application/fhir+json";
        if (etag != null) request.Headers["If-Match"] = etag;
        var proxy = Environment.GetEnvironmentVariable("http_proxy");
        if (proxy != null) request.Proxy = new WebProxy(proxy);
        if (body != null)
        {
            request.ContentType = "application/fhir+json";
            using (var sent = request.GetRequestStream()) sent.Write(body, 0, body.Length);
        }
        HttpWebResponse answer;
        try { answer = (HttpWebResponse)request.GetResponse(); }
        catch (WebException error) when (error.Response != null) { answer = (HttpWebResponse)error.Response; }
        using (answer) // or the connection is not used again
        using (var text = new MemoryStream())
        {
            answer.GetResponseStream().CopyTo(text);
            return new Answer {
                Status = (int)answer.StatusCode, Etag = answer.Headers["ETag"],
                Location = answer.Headers["Location"], Body = text.ToArray() };
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
