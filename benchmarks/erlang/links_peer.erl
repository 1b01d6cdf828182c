%% Erlang's distribution on loopback: the work of aspen/bench/links.py. Two nodes, each `erl +S 1`.
%%
%% Calls are gen_server:call to a registered process of the other node, which an Erlang program would use; casts are
%% messages, and the last one is a call, so that all have come.
-module(links_peer).
-behaviour(gen_server).

-export([main/1, echo/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% main([Name, Count, OtherNode]) runs a benchmark against the echo there and prints one number.
main([Name, Count, Other]) ->
    Node = list_to_atom(Other),
    wait(Node, 100),
    io:format("~w~n", [float(run(Name, {echo, Node}, list_to_integer(Count)))]),
    rpc:cast(Node, erlang, halt, [0]),
    timer:sleep(50),
    halt(0).

wait(_, 0) -> halt(1);
wait(Node, Left) ->
    case catch gen_server:call({echo, Node}, hello, 1000) of
        hello -> ok;
        _ -> timer:sleep(50), wait(Node, Left - 1)
    end.

echo(_) ->
    {ok, _} = gen_server:start({local, echo}, ?MODULE, [], []).

run("calls_1_per_s", Echo, Count) -> calls(Echo, 1, Count);
run("calls_100_per_s", Echo, Count) -> calls(Echo, 100, Count);
run("casts_100b_per_s", Echo, Count) -> casts(Echo, 100, Count);
run("mib_per_s_1mib", Echo, Count) -> casts(Echo, 1024 * 1024, Count).

per_s(Count, Fun) ->
    Start = erlang:monotonic_time(nanosecond),
    Fun(),
    Count * 1.0e9 / (erlang:monotonic_time(nanosecond) - Start).

calls(Echo, Callers, Count) ->
    Main = self(),
    Each = Count div Callers,
    per_s(Each * Callers, fun() ->
        [spawn(fun() -> call_many(Echo, Each), Main ! done end) || _ <- lists:seq(1, Callers)],
        [receive done -> ok end || _ <- lists:seq(1, Callers)]
    end).

call_many(_, 0) -> ok;
call_many(Echo, Left) ->
    _ = gen_server:call(Echo, {call, Left, <<"....................">>}, infinity),
    call_many(Echo, Left - 1).

casts(Echo, Size, Count) ->
    Message = binary:copy(<<"s">>, Size),
    per_s(Count, fun() ->
        cast_many(Echo, {cast, Message}, Count),
        hello = gen_server:call(Echo, hello, infinity)
    end).

cast_many(_, _, 0) -> ok;
cast_many(Echo, Message, Left) ->
    Echo ! Message,
    cast_many(Echo, Message, Left - 1).

init(_) -> {ok, 0}.

handle_call(What, _From, N) -> {reply, What, N}.

handle_cast(_, N) -> {noreply, N}.

handle_info({cast, Message}, N) -> {noreply, N + byte_size(Message)};
handle_info(_, N) -> {noreply, N}.
