using System;
using System.IO;
using System.Text;

// What the programs in C# share.
public class Answer
{
    public int Status;
    public string Etag, Location;
    public byte[] Body;
}

public static class Orders
{
    public static void Serve(Func<string, string, byte[], string, Answer> call, Func<string, Answer> search)
    {
        var input = new StreamReader(Console.OpenStandardInput(), Encoding.UTF8);
        for (string line; (line = input.ReadLine()) != null; )
        {
            var order = Array.ConvertAll(line.Split('\t'), each => each == "-" ? null : each);
            var body = order[2] == null ? null : File.ReadAllBytes(order[2]);
            var answer = order[0] == "SEARCH" ? search(order[1]) : call(order[0], order[1], body, order[3]);
            File.WriteAllBytes(Environment.GetEnvironmentVariable("OUT"), answer.Body);
            Console.WriteLine("{0}\t{1}\t{2}", answer.Status, answer.Etag, answer.Location);
        }
    }
}
